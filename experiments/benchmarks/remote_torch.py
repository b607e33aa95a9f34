"""Images/s of torch's DataLoader on photos in S3, by s3fs as its documentation has it: a peer of remote.py, for a Python with torch.

    python experiments/benchmarks/remote_torch.py LIST PASSES

LIST is a text file of s3:// URLs; the server is named by AWS_ENDPOINT_URL. Two workers, started by spawn, as s3fs asks for.
"""

import argparse
import random
import sys
import time
from pathlib import Path

from pack_peers import BATCH, SIZE, WORKERS, cpu_seconds


class Photos:
    """Decoded, a random resized crop, a flip; see pack_peers.py."""

    def __init__(self, urls: list[str]):
        self.urls = urls
        self.system = self.view = None

    def __len__(self) -> int:
        return len(self.urls)

    def __getitem__(self, index: int):
        import io

        from PIL import Image

        if self.view is None:
            import s3fs
            from torch_peer import define_missing_operators

            define_missing_operators()
            from torchvision import transforms

            self.system = s3fs.S3FileSystem()
            self.view = transforms.Compose(
                [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
            )
        return self.view(Image.open(io.BytesIO(self.system.cat_file(self.urls[index]))).convert("RGB"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("passes", type=int)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    urls = arguments.list.read_text().split("\n")
    order = [url for number in range(arguments.passes + 1) for url in random.Random(number).sample(urls, len(urls))]
    batches = torch.utils.data.DataLoader(
        Photos(order), BATCH, num_workers=WORKERS, drop_last=True, multiprocessing_context="spawn", prefetch_factor=2
    )
    stream, count = iter(batches), 0
    for _ in range(len(urls) // BATCH):
        next(stream)
    start = time.perf_counter()
    for batch in stream:
        count += len(batch)
    seconds = time.perf_counter() - start
    del stream
    print(
        f"{count / seconds:.1f} img/s, {1000 * cpu_seconds() / (count + len(urls)):.2f} CPU s per 1,000 images, start included",
        file=sys.stdout,
    )


if __name__ == "__main__":
    main()
