"""What a comparison of two models shows about parts that were not compared."""

from __future__ import annotations

from dataclasses import dataclass

from supersimplenet.errors import ConfigError
from supersimplenet.metrics.thresholds import parts_needed
from supersimplenet.utils.formatting import counted, per_cent, shown_rate

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the parts that were compared show about others like them.

    A candidate can let escape newly only a bad part that the current model finds: these are at risk. The more there
    are without a new escape, the smaller the share of them that the candidate may still miss.

    Attributes:
        found: bad parts that the current model calls bad or unsure.
        newly_missed: those of them that the candidate calls good.
        missed_bound: share of such parts that the candidate misses, at most, with 95 % confidence.
        passed: good parts that the current model calls good or unsure.
        newly_rejected: those of them that the candidate calls bad.
        rejected_bound: share of such parts that the candidate calls bad, at most, likewise.
        only_candidate_right: number of parts that only the candidate gets right; ``unsure`` is no mistake.
        only_current_right: number of parts that only the current model gets right.
        p_value: of the hypothesis that both are right equally often (McNemar's exact test).
    """

    found: int
    newly_missed: int
    missed_bound: float
    passed: int
    newly_rejected: int
    rejected_bound: float
    only_candidate_right: int
    only_current_right: int
    p_value: float

    def describe(self) -> str:
        """Return in a sentence what is shown."""
        return (
            f"of the bad parts that the current model finds, the candidate misses at most "
            f"{shown_rate(self.missed_bound)} ({self.newly_missed} of {self.found} seen), of the good parts that "
            f"pass, it calls bad at most {shown_rate(self.rejected_bound)} ({self.newly_rejected} of {self.passed} "
            f"seen), each with {per_cent(CONFIDENCE)} confidence; only the candidate is right about "
            f"{counted(self.only_candidate_right, 'part')}, only the current model about "
            f"{self.only_current_right} (McNemar p {self.p_value:.2g})"
        )

    def lacks(self, margin: float) -> list[str]:
        """Return why a share of new mistakes is not shown to be within a margin; empty where it is shown.

        Raises:
            ConfigError: the margin is no share between 0 and 1.
        """
        if not 0 < margin < 1:
            raise ConfigError(f"margin: {margin:g}; wanted a share above 0 and below 1")
        wanted = parts_needed(margin, CONFIDENCE)
        lacks = []
        for bound, seen, mistakes, kind, at_risk, does in (
            (self.missed_bound, self.found, self.newly_missed, "bad", "that the current model finds", "misses"),
            (self.rejected_bound, self.passed, self.newly_rejected, "good", "that pass", "calls bad"),
        ):
            if bound > margin:
                lacks.append(
                    f"compared by {counted(seen, f'{kind} part')} {at_risk}, {mistakes} with a new mistake: this shows "
                    f"only that the candidate {does} at most {shown_rate(bound)} of such parts; for {per_cent(margin)}"
                    f", {wanted} without a new mistake are needed"
                )
        return lacks

    @property
    def margin(self) -> float:
        """The smallest margin that is shown."""
        return max(self.missed_bound, self.rejected_bound)
