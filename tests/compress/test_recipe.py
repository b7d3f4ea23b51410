"""Recipes: read strictly, checked before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.compress.channels import ChannelPruning
from edgekit.compress.recipe import FineTuning, Quantization, load_recipe, parse_recipe
from edgekit.compress.sparsity import MagnitudePruning
from edgekit.compress.training import Training
from edgekit.errors import UsageError

RECIPE = """
schema = 1
[training]
epochs = 4
learning_rate = 2e-3
[[step]]
kind = "channels"
keep = 0.75
importance = "taylor"
keep_by_group = { stem = 0.5 }
[[step]]
kind = "magnitude"
sparsity = 0.6
schedule = "gradual"
[[step]]
kind = "fine_tune"
loss = "both"
[[step]]
kind = "quantize"
method = "qat"
epochs = 2
"""


def test_steps_in_order_with_the_common_training(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    recipe = load_recipe(path)
    assert recipe.steps == (
        ChannelPruning(keep=0.75, importance="taylor", keep_by_group={"stem": 0.5}),
        MagnitudePruning(sparsity=0.6, schedule="gradual"),
        FineTuning(training=Training(epochs=4, learning_rate=2e-3, loss="both")),
        Quantization(method="qat", training=Training(epochs=2, learning_rate=2e-3)),
    )
    assert recipe.learns
    assert not parse_recipe("schema=1\n[[step]]\nkind='channels'\n[[step]]\nkind='quantize'").learns
    assert recipe.text == RECIPE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("schema = ", "not valid TOML"),
        ("schema = 2\n[[step]]\nkind='channels'", "schema = 1"),
        ("schema = 1", "no steps"),
        ("schema = 1\nsteps = 1", 'unknown key `steps`.*Did you mean "step"'),
        ("schema = 1\n[training]\nepoch = 1\n[[step]]\nkind='fine_tune'", 'training.*Did you mean "epochs"'),
        ("schema = 1\n[[step]]\nkind='chanels'", 'step 1.*Did you mean "channels"'),
        ("schema = 1\n[[step]]\nkind='channels'\nkep = 1", 'step 1.*Did you mean "keep"'),
        ("schema = 1\n[[step]]\nkind='channels'\nkeep = 1.5", "step 1.*in \\(0, 1\\]"),
        ("schema = 1\n[[step]]\nkind='channels'\nkeep = 'all'", "step 1.*keep"),
        ("schema = 1\n[[step]]\nkind='magnitude'\nsparsity = 1.0", "step 1.*between 0 and 1"),
        ("schema = 1\n[[step]]\nkind='fine_tune'\nepochs = 0", "step 1.*epochs is at least 1"),
        ("schema = 1\n[[step]]\nkind='fine_tune'\nloss = 'x'", "step 1.*loss"),
        ("schema = 1\n[[step]]\nkind='quantize'\n[[step]]\nkind='fine_tune'", "step 2.*nothing can follow"),
        ("schema = 1\n[[step]]\nkind='magnitude'\n[[step]]\nkind='channels'", "step 2.*masks"),
        (
            "schema = 1\n[[step]]\nkind='magnitude'\nschedule='gradual'\n[[step]]\nkind='quantize'",
            "step 1.*while the next step trains",
        ),
    ],
)
def test_what_is_wrong_is_said_where(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_recipe(text)
