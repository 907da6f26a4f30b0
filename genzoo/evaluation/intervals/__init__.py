"""How far a number may be off: intervals over samples, each by a method whose coverage was simulated.

Fréchet distances: influence functions, or a jackknife over groups. Kernel distances: U-statistics. Shares
of samples: Wilson. Everything else: half-samples without replacement. The percentile bootstrap is not
here: it draws rows twice, which adds the bias of a Fréchet distance once more and shrinks the balls of
recall and coverage, so its 95 % held in 0 to 79 of 100 simulations
(tests/evaluation/test_coverage.py repeats one).
"""
