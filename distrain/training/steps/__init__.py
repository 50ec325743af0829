"""The exact step: what a replica computes, and how the shares of a global batch add up."""
