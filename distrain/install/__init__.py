"""How does Horovod get into an environment from the package index alone?"""
