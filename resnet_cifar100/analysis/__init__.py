"""Understanding a network and its run: reports, comparisons, calibration, heat maps."""
