"""Floor 0: configuration, hub files, weights, outputs, random numbers, errors, logging. Imports nothing else of ours."""
