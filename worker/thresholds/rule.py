"""How a threshold comes about: it rolls with the traffic, or it is one number that the training scores give.

rolling            a quantile of recent scores, see worker.thresholds.inlier
fixed              `value` itself
training-quantile  the quantile `value` of the training scores
contamination      the quantile 1 - `value`: so large a share of the training records counts as anomalous, as in PyOD
"""

from dataclasses import dataclass

import numpy as np

from worker.records import FloatArray

RULES = ("rolling", "fixed", "training-quantile", "contamination")
DEFAULT_VALUES = {"training-quantile": 0.95, "contamination": 0.1}


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """A rule and its one number. None: a rolling threshold has none; of the last two rules it is the usual one."""

    name: str = "rolling"
    value: float | None = None

    def theta(self, training: FloatArray) -> float | None:
        """The threshold that these training scores (n,) give, its quantiles between two scores as numpy's are.

        None where it rolls.
        """
        value = DEFAULT_VALUES.get(self.name) if self.value is None else self.value
        if self.name == "rolling" or value is None:
            return None
        if self.name == "fixed":
            return value
        return float(np.quantile(training, value if self.name == "training-quantile" else 1 - value))
