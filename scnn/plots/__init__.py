"""The book's figures that take more than a few lines to draw.

Nothing is computed here. Pages use `from scnn import plots`, which offers all figures.
"""

from scnn.plots.common import (
    MODEL_COLORS,
    crisp_figures,
    feature_image,
    model_name,
    named_players,
    signed,
    stretch_accuracy,
)
from scnn.plots.device import break_even, shrinking_gain, word_on_device
from scnn.plots.features import image_steps, players, read_outs, trimmed
from scnn.plots.front import fronts, trials
from scnn.plots.layers import ZERO_ORIGINS, channel_steps, layer_steps, zero_origins
from scnn.plots.neurons import membrane_trace, raster
from scnn.plots.quantization import (
    accuracy_rows,
    clipped_gradients,
    footprints,
    gradient_checks,
    membrane_ranges,
    recipe_histories,
)
from scnn.plots.search import search_projections, search_space, sweeps
from scnn.plots.speed import speedups, time_shares
from scnn.plots.training import (
    accuracy_against_cost,
    activity_shares,
    architectures,
    confusion,
    rate_maps,
    training_curves,
)
from scnn.plots.voices import answer_shares, confidences, new_voices

__all__ = [
    "MODEL_COLORS",
    "ZERO_ORIGINS",
    "accuracy_against_cost",
    "accuracy_rows",
    "activity_shares",
    "answer_shares",
    "architectures",
    "break_even",
    "channel_steps",
    "clipped_gradients",
    "confidences",
    "confusion",
    "crisp_figures",
    "feature_image",
    "footprints",
    "fronts",
    "gradient_checks",
    "image_steps",
    "layer_steps",
    "membrane_ranges",
    "membrane_trace",
    "model_name",
    "named_players",
    "new_voices",
    "players",
    "raster",
    "rate_maps",
    "read_outs",
    "recipe_histories",
    "search_projections",
    "search_space",
    "shrinking_gain",
    "signed",
    "speedups",
    "stretch_accuracy",
    "sweeps",
    "time_shares",
    "training_curves",
    "trials",
    "trimmed",
    "word_on_device",
    "zero_origins",
]
