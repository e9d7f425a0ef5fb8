"""`RecipeChoice`: how a pipeline names a recipe, apart so that stages and repairs can both hold one."""

from pydantic import BaseModel, ConfigDict


class RecipeChoice(BaseModel):
    """A recipe by name and its parameters; see `braid recipes`. The recipe's own file holds the defaults."""

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str
