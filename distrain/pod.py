"""`python -m distrain.pod`: the entry of a pod of an Indexed Job, under the name that manifests use."""

import sys

from distrain.launchers.pod import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
