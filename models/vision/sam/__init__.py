"""Segment Anything (Kirillov et al. 2023): a picture is encoded once, and any number of prompts are decoded."""

from models.vision.sam.config import ImageEncoderConfig, MaskDecoderConfig, PromptEncoderConfig, SAMConfig
from models.vision.sam.model import SAM

__all__ = ["SAM", "ImageEncoderConfig", "MaskDecoderConfig", "PromptEncoderConfig", "SAMConfig"]
