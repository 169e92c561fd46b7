"""What another process makes of the same files: digests of what it writes, and what it reads back.

    python codec_process.py < {"files": {NAME: PATH}, "options": [{...}], "read": {NAME: PATH}}

Each file is compressed with each of the options and decompressed again; each container under
"read" is decompressed. Tells the back end, and digests, as JSON.
"""

import hashlib
import json
import sys
from pathlib import Path

from bytelm.compression import Options, compress, decompress, kernels


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def main(job: dict) -> dict:
    written: dict[str, list[str]] = {}
    for name, path in job["files"].items():
        data = Path(path).read_bytes()
        written[name] = []
        for options in job["options"]:
            blob = compress(data, options=Options(**options))
            assert decompress(blob) == data, name
            written[name].append(digest(blob))
    read = {name: digest(decompress(Path(path).read_bytes())) for name, path in job["read"].items()}
    return {"backend": kernels.BACKEND, "written": written, "read": read}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.stdin.read()))) + "\n")
