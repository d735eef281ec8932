"""How good a learner is: scores, their errors, calibration."""
