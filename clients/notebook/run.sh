#!/usr/bin/env bash
# The notebook, executed from top to bottom against a running kedge. REAL names a
# folder with elec.csv; without it the notebook makes its data and says so.
set -euo pipefail
cd "$(dirname "$0")/../.."
source clients/serve.sh
export KEDGE_SERVER="$SERVER" PYTHONPATH="$PWD/python" IPYTHONDIR="$DATA/ipython" JUPYTER_PLATFORM_DIRS=1
.deps/python/notebook/bin/python - <<'PY'
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read("python/notebooks/electricity.ipynb", as_version=4)
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
for cell in notebook.cells:
    for out in cell.get("outputs", []):
        print(out.get("text") or out["data"]["text/plain"])
PY
