"""Few-shot data sets: read from disk and cached once decoded, or generated."""

from srwm_agents.extras import require

require("fewshot", "PIL")

from srwm_agents.fewshot.data.archives import AbsentError, DataError  # noqa: E402
from srwm_agents.fewshot.data.cache import DEFAULT_DATA_DIR, ImageSet, Track, default_cache_dir  # noqa: E402
from srwm_agents.fewshot.data.loading import DATASET_NAMES, image_format, load_images  # noqa: E402
from srwm_agents.fewshot.data.specs import DATASETS, SPLITS  # noqa: E402

__all__ = [
    "DATASETS",
    "DATASET_NAMES",
    "DEFAULT_DATA_DIR",
    "SPLITS",
    "AbsentError",
    "DataError",
    "ImageSet",
    "Track",
    "default_cache_dir",
    "image_format",
    "load_images",
]
