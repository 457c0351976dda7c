"""Few-shot data sets: read from disk and cached once decoded, or generated."""

from srwm_agents.fewshot.data.archives import DataError
from srwm_agents.fewshot.data.cache import DEFAULT_DATA_DIR, ImageSet, Track, default_cache_dir
from srwm_agents.fewshot.data.loading import DATASET_NAMES, image_format, load_images
from srwm_agents.fewshot.data.specs import DATASETS, SPLITS

__all__ = [
    "DATASETS",
    "DATASET_NAMES",
    "DEFAULT_DATA_DIR",
    "SPLITS",
    "DataError",
    "ImageSet",
    "Track",
    "default_cache_dir",
    "image_format",
    "load_images",
]
