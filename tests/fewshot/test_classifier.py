"""The classifier: what it is told when, queries that do not meet, and what is saved is what is loaded."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from srwm_agents import AgentError, load_agent
from srwm_agents.cores import CORES
from srwm_agents.encoders.conv4 import conv4
from srwm_agents.encoders.resnet12 import resnet12
from srwm_agents.fewshot import ClassifierConfig, FewShotClassifier, load_classifier, save_classifier

SETTINGS = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 32, "input_softmax": False}


def make(core: str = "srwm", **changes) -> FewShotClassifier:
    torch.manual_seed(0)
    config = {"core": core, "core_settings": SETTINGS, "ways": 3, "image_shape": (1, 16, 16), **changes}
    return FewShotClassifier(ClassifierConfig(**{"encoder_settings": {"channels": 4}, **config})).eval()


def images(batch: int, number: int, seed: int = 0, channels: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(256, (batch, number, channels, 16, 16), dtype=torch.uint8, generator=g)


LABELS = torch.tensor([[0, 2, 1, 2], [1, 1, 0, 2]])


def by_hand(
    model: FewShotClassifier, pictures: torch.Tensor, told: list[list[int]], scale: float = 1.0
) -> torch.Tensor:
    """The core's last output when it is told exactly these labels."""
    flat = (pictures.flatten(0, 1).float() - model.mean) / model.std
    embedded = model.norm(model.encoder(flat)).unflatten(0, pictures.shape[:2])
    one_hot = F.one_hot(torch.tensor(told), 4).float() * scale
    out, _ = model.core(torch.cat([embedded, one_hot], -1), model.core.initial_state(len(pictures)))
    return model.head(out)


@pytest.mark.parametrize("core", CORES)
def test_synchronous_examples_come_with_their_label_and_queries_with_unknown(core: str) -> None:
    model = make(core)
    shown, asked = images(2, 4), images(2, 1, 1)
    _, memory = model.read(model.embed(shown), LABELS, model.blank(2))
    answer = model.answer(model.embed(asked), memory)
    expected = by_hand(model, torch.cat([shown, asked], 1), [[0, 2, 1, 2, 3], [1, 1, 0, 2, 3]])
    torch.testing.assert_close(answer, expected[:, -1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("given", "scale"), [(3.0, 3.0), (None, 0.4)])
def test_labels_are_scaled(given: float | None, scale: float) -> None:
    model = make(label_scale=given)  # 4 channels, 1×1 at the end: the embedding is 4 wide
    shown, asked = images(2, 4), images(2, 1, 1)
    _, memory = model.read(model.embed(shown), LABELS, model.blank(2))
    expected = by_hand(model, torch.cat([shown, asked], 1), [[0, 2, 1, 2, 3], [1, 1, 0, 2, 3]], scale)
    torch.testing.assert_close(model.answer(model.embed(asked), memory), expected[:, -1:], rtol=1e-4, atol=1e-5)


def test_delayed_labels_come_one_step_late() -> None:
    model = make(labels="delayed")
    shown, asked = images(2, 4), images(2, 1, 1)
    embedded = model.embed(shown)
    predictions, memory = model.read(embedded, LABELS, model.blank(2))
    answer = model.answer(model.embed(asked), memory)
    expected = by_hand(model, torch.cat([shown, asked], 1), [[3, 0, 2, 1, 2], [3, 1, 1, 0, 2]])
    torch.testing.assert_close(torch.cat([predictions, answer], 1), expected, rtol=1e-4, atol=1e-5)
    # In two pieces: the last label of the first comes with the first image of the second.
    first, memory = model.read(embedded[:, :3], LABELS[:, :3], model.blank(2))
    second, _ = model.read(embedded[:, 3:], LABELS[:, 3:], memory)
    torch.testing.assert_close(torch.cat([first, second], 1), predictions, rtol=1e-4, atol=1e-5)


def test_a_prediction_does_not_see_its_own_label() -> None:
    model = make(labels="delayed")
    embedded = model.embed(images(2, 4))
    predictions, _ = model.read(embedded, LABELS, model.blank(2))
    others = LABELS.clone()
    others[:, -1] = (LABELS[:, -1] + 1) % 3
    torch.testing.assert_close(model.read(embedded, others, model.blank(2))[0], predictions)


@pytest.mark.parametrize("labels", ["synchronous", "delayed"])
def test_unknown_is_no_label(labels: str) -> None:
    model = make(labels=labels)
    embedded = model.embed(images(1, 1))
    unknown = model.answer(embedded, model.blank(1))
    for label in range(3):
        told = model.blank(1)._replace(label=torch.tensor([label]))
        assert not torch.allclose(model.answer(embedded, told), unknown)


def test_each_query_is_answered_as_if_it_were_the_only_one() -> None:
    model = make()
    _, memory = model.read(model.embed(images(2, 4)), LABELS, model.blank(2))
    asked = model.embed(images(2, 5, 1))
    together = model.answer(asked, memory)
    alone = torch.cat([model.answer(asked[:, i : i + 1], memory) for i in range(5)], 1)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_learning_and_predicting_for_one_or_many() -> None:
    model = make(mean=(0.3,), std=(0.2,))
    shown, asked = images(2, 4), images(2, 3, 1)
    memory = model.learn(shown, LABELS)
    probabilities = model.predict(asked, memory)
    assert probabilities.shape == (2, 3, 3)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 3))
    single = model.predict(asked[1], model.learn(shown[1], LABELS[1]))
    torch.testing.assert_close(single, probabilities[1], rtol=1e-5, atol=1e-6)
    again = model.learn(shown[:, 2:], LABELS[:, 2:], model.learn(shown[:, :2], LABELS[:, :2]))
    torch.testing.assert_close(again.state, memory.state, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="labels go from 0 to 3, expected 0 to 2"):
        model.learn(shown, LABELS + (LABELS == 2))
    with pytest.raises(ValueError, match=r"images have shape \[2, 4, 3, 16, 16\], expected"):
        model.learn(images(2, 4, channels=3), LABELS)


@pytest.mark.parametrize("core", ["srwm", "delta", "lstm", "gru", "fake_sr"])
def test_what_is_saved_is_what_is_loaded(core: str, tmp_path) -> None:
    model = make(core, labels="delayed", mean=(0.1,), std=(0.3,), task={"shots": 2}, training={"steps": 7})
    loaded = load_classifier(save_classifier(model, tmp_path / "agent"))
    assert loaded.config == model.config
    assert not loaded.training
    memory = model.learn(images(2, 4), LABELS)
    torch.testing.assert_close(loaded.learn(images(2, 4), LABELS).state, memory.state, rtol=0, atol=0)
    torch.testing.assert_close(
        loaded.predict(images(2, 1), memory), model.predict(images(2, 1), memory), rtol=0, atol=0
    )


def test_the_wrong_kind_or_an_altered_file_is_refused(tmp_path) -> None:
    folder = save_classifier(make(), tmp_path / "agent")
    with pytest.raises(AgentError, match="holds few_shot_classifier, expected agent"):
        load_agent(folder)
    # As a later version might have saved it: a whole file, with a value that this version does not know.
    classifier = make()
    object.__setattr__(classifier.config, "labels", "late")
    save_classifier(classifier, folder)
    with pytest.raises(AgentError, match="labels is 'late', allowed: synchronous, delayed"):
        load_classifier(folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(AgentError, match="truncated or altered"):
        load_classifier(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "vit"}, "unknown encoder 'vit', allowed: conv4, resnet12"),
        ({"ways": 1}, "ways is 1, expected at least 2"),
        ({"image_shape": (1, 8, 8)}, "H and W of at least 16"),
        ({"image_shape": (3, 16, 16)}, "mean has 1 entries, images have 3 channels"),
        ({"core": "rnn"}, "unknown core 'rnn'"),
    ],
)
def test_settings_out_of_range_are_named(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_encoders_have_the_published_widths() -> None:
    assert conv4(1, channels=64)(torch.zeros(2, 1, 28, 28)).shape == (2, 64)
    assert conv4(3, channels=32)(torch.zeros(2, 3, 84, 84)).shape == (2, 800)
    network = resnet12(3)
    assert network(torch.zeros(2, 3, 84, 84)).shape == (2, 640)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) == 12
    assert [m.out_channels for m in convolutions if m.kernel_size == (1, 1)] == [64, 160, 320, 640]
    assert any(isinstance(m, torch.nn.Dropout) and m.p == 0.2 for m in conv4(1, dropout=0.2).modules())


def test_relu_and_max_pool_commute() -> None:
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(F.relu(F.max_pool2d(x, 2)), F.max_pool2d(F.relu(x), 2), rtol=0, atol=0)
