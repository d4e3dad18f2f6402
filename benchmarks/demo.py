"""What `make demo` prints, as it ran once: {"printed": text}, paths without the folder it ran in."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--seed", type=int, help="of no effect: nothing is drawn at random")
    parser.parse_args()
    ran = subprocess.run([sys.executable, "-m", "tubelet.demo"], capture_output=True, text=True)
    sys.stderr.write(ran.stderr)
    print(json.dumps({"printed": ran.stdout.replace(os.getcwd() + os.sep, "")}))
    sys.exit(ran.returncode)
