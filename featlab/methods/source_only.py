"""Source-only: the source model as it is, C(B(f)). What every other row is compared with."""

from __future__ import annotations

from featlab.bundle.bundle import Bundle
from featlab.methods.base import Method, base_model
from featlab.model.personal import AdaptedModel
from featlab.protocol.splits import Target


class SourceOnly(Method):
    """No adaptation."""

    name = "source-only"
    title = "Source model (no adaptation)"
    setting = "Source-only"
    published = "As published everywhere: the source model in evaluation mode, without T."

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return the source model."""
        self.check(bundle, target)
        return AdaptedModel(base_model(bundle))
