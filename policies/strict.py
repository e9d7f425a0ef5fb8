"""`Strict`: the base of every config model, apart so that each part of the config can have a module of its own."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Base of every config model: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
