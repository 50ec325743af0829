"""When a run saves, what a save checks, and how little of the processor it takes."""
