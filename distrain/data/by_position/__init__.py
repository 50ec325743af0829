"""Sources by position: how a user's own objects are read, and become rows of arrays."""
