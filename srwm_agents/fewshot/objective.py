"""Training losses of few-shot classifiers, for a batch of episodes of any task."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srwm_agents.fewshot.classifier import FewShotClassifier
from srwm_agents.fewshot.tasks import Episode


class Objective(nn.Module):
    """A classifier with its training loss, as one module for DDP and ``torch.compile``.

    - Synchronous labels: cross-entropy of the queries' answers.
    - Delayed labels: cross-entropy of the answers *and* of the prediction at every example, with equal weights.
    - Bootstrapped (two segments with the same queries): CE(now) + w · KL(future ‖ now) + CE(future), where the KL has
      no gradient into the future's answers. Irie & Schmidhuber, ICLR 2023 workshop; w = 10 there.
    - Auxiliary (optional): + a · cross-entropy of a linear classifier of the embeddings over all training classes,
      on every image of the episode. Source: Oreshkin et al., "TADAM", NeurIPS 2018, section 2.4. Deviation: in the same
      step.
    """

    def __init__(
        self,
        classifier: FewShotClassifier,
        *,
        bootstrap_weight: float | None = None,
        auxiliary_weight: float = 0.0,
        identities: int = 0,
    ) -> None:
        """Wrap a classifier.

        Args:
            classifier: what is trained.
            bootstrap_weight: w above; None without bootstrapping.
            auxiliary_weight: a above; 0: no auxiliary loss.
            identities: number of training classes, for the auxiliary loss.
        """
        super().__init__()
        self.classifier = classifier
        self.bootstrap_weight = bootstrap_weight
        self.auxiliary_weight = auxiliary_weight
        self.auxiliary = nn.Linear(classifier.embedding_size, identities) if auxiliary_weight > 0 else None

    def forward(self, episode: Episode) -> tuple[Tensor, Tensor]:
        """The loss, and the accuracy of the last segment's answers; both scalars."""
        classifier, delayed = self.classifier, self.classifier.config.labels == "delayed"
        draws = [draw for segment in episode for draw in segment]
        # One pass through the encoder, so that its batch norms use the whole episode.
        embedded = classifier.embed(torch.cat([draw.images for draw in draws], dim=1))
        parts = embedded.split([draw.labels.shape[1] for draw in draws], dim=1)

        memory = classifier.blank(len(embedded))
        losses, answers = [], []
        for (examples, queries), shown, asked in zip(episode, parts[::2], parts[1::2], strict=True):
            predictions, memory = classifier.read(shown, examples.labels, memory)
            answer = classifier.answer(asked, memory)
            answers.append(answer)
            if delayed:
                answer = torch.cat([predictions, answer], dim=1)
                losses.append(_cross_entropy(answer, torch.cat([examples.labels, queries.labels], dim=1)))
            else:
                losses.append(_cross_entropy(answer, queries.labels))

        if self.bootstrap_weight is None:
            loss = torch.stack(losses).mean()
        else:
            now, future = (answer.flatten(0, 1).log_softmax(-1) for answer in answers)
            pull = F.kl_div(now, future.detach(), reduction="batchmean", log_target=True)
            loss = losses[0] + self.bootstrap_weight * pull + losses[1]
        if self.auxiliary is not None:
            identities = torch.cat([draw.identities for draw in draws], dim=1)
            loss = loss + self.auxiliary_weight * _cross_entropy(self.auxiliary(embedded), identities)
        return loss, (answers[-1].argmax(-1) == episode[-1].queries.labels).float().mean()


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over [B, S] of logits [B, S, N]."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())
