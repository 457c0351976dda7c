"""A trained agent for programs without this package, or without Python: ONNX and ``torch.export``."""

from srwm_agents.integrations.export.exporting import FORMATS, Exported, ExportError, export_agent

__all__ = ["FORMATS", "ExportError", "Exported", "export_agent"]
