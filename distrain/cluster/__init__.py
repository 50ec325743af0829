"""The processes of a job: how they find each other, whether they are alive, and whether they agree."""
