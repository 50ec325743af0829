"""What a checkpoint of a run holds, which checks precede it, and how little of the processor its writing takes."""
