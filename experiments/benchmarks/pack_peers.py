"""Images/s of torch's DataLoader and of tf.data on a list of photos: decoded, a random resized crop of 224, a flip, batches of uint8.

    python experiments/benchmarks/pack_peers.py torch LIST    # in a Python that has torch and torchvision
    python experiments/benchmarks/pack_peers.py tf LIST       # in one that has tensorflow

LIST is a text file of paths. A peer of pack.py, for Pythons that imgclf's own needs not be. Prints images per second, and CPU seconds per
thousand images of all its processes; imports, and for the rate the first pass, don't count.
"""

import argparse
import random
import resource
import time
from pathlib import Path

SIZE, BATCH, WORKERS = 224, 64, 2


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def torch_batches(paths: list[str], passes: int):
    import torch
    from torch_peer import define_missing_operators

    define_missing_operators()
    from PIL import Image
    from torchvision import transforms

    view = transforms.Compose([transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.PILToTensor()])

    class Photos(torch.utils.data.Dataset):  # as torchvision's ImageFolder reads them
        def __len__(self) -> int:
            return len(paths) * passes

        def __getitem__(self, index: int):
            with open(paths[index % len(paths)], "rb") as file:
                return view(Image.open(file).convert("RGB"))

    order = list(range(len(paths) * passes))
    random.Random(0).shuffle(order)
    torch.set_num_threads(1)
    return torch.utils.data.DataLoader(Photos(), BATCH, sampler=order, num_workers=WORKERS, drop_last=True)


def tf_batches(paths: list[str], passes: int):
    import tensorflow as tf

    def view(path):
        data = tf.io.read_file(path)
        box, shape, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(data),
            tf.zeros([1, 0, 4]),
            min_object_covered=0.08,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            use_image_if_no_bounding_boxes=True,
        )
        (y, x, _), (h, w, _) = tf.unstack(box), tf.unstack(shape)
        image = tf.image.decode_and_crop_jpeg(data, tf.stack([y, x, h, w]), 3)
        image = tf.image.random_flip_left_right(tf.image.resize(image, (SIZE, SIZE)))
        return tf.cast(tf.round(image), tf.uint8)

    files = tf.data.Dataset.from_tensor_slices(paths).repeat(passes).shuffle(len(paths))
    options = tf.data.Options()
    options.threading.private_threadpool_size = WORKERS
    return files.map(view, WORKERS, deterministic=False).batch(BATCH, drop_remainder=True).prefetch(2).with_options(options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=("torch", "tf"))
    parser.add_argument("list", type=Path)
    parser.add_argument("--passes", type=int, default=8, help="over the photos, after one that warms up")
    arguments = parser.parse_args()
    paths = arguments.list.read_text().split("\n")
    make = torch_batches if arguments.library == "torch" else tf_batches
    loader = make(paths, arguments.passes + 1)  # imports: before the clocks start
    cpu = cpu_seconds()
    batches = iter(loader)
    for _ in range(len(paths) // BATCH + 1):
        next(batches)
    start, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch)
    seconds = time.perf_counter() - start
    spent = cpu_seconds() - cpu  # of all passes: a worker's time is known once it is gone
    print(f"{count / seconds:.1f} img/s, {1000 * spent / (len(paths) * (arguments.passes + 1)):.2f} CPU seconds per 1,000 images")


if __name__ == "__main__":
    main()
