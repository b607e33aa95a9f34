"""The peers of trainings.py: the same training as a user of Keras or PyTorch writes it, from class folders to a score on photos held out.

    TF experiments/benchmarks/trainings_peers.py keras-generator cnn DATA --epochs 4
    TF experiments/benchmarks/trainings_peers.py keras-dataset cnn DATA --epochs 4
    TORCH experiments/benchmarks/trainings_peers.py torch cnn DATA --epochs 4

keras-generator is ImageDataGenerator.flow_from_directory, as tutorials have it; keras-dataset image_dataset_from_directory with layers
that augment; torch is torchvision, a DataLoader with 2 workers and a plain loop. For Pythons of their own. The last line is JSON: score,
and seconds of an epoch after the first, its evaluation included.
"""

import argparse
import json
import os
import time
from collections.abc import Iterable
from typing import Any

BATCH = {"cnn": 16, "mobilenet_v2": 32, "probe": 32}
SIZE = {"cnn": 128, "mobilenet_v2": 224, "probe": 224}


def keras_training(way: str, work: str, data: str, epochs: int) -> dict[str, float]:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import numpy as np
    from keras import layers
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    size, batch, held = (SIZE[work],) * 2, BATCH[work], held_out(data)
    moved = {"rotation_range": 40, "width_shift_range": 0.2, "height_shift_range": 0.2, "shear_range": 11.5, "zoom_range": 0.2}
    if way == "generator":
        options = {"target_size": size, "batch_size": batch, "class_mode": "sparse"}
        augmented = {"cnn": {**moved, "horizontal_flip": True}, "mobilenet_v2": {"horizontal_flip": True}, "probe": {}}[work]
        train = ImageDataGenerator(rescale=1 / 255, **augmented).flow_from_directory(f"{data}/train", shuffle=work != "probe", **options)
        test = ImageDataGenerator(rescale=1 / 255).flow_from_directory(f"{data}/{held}", shuffle=False, **options)
        classes = train.num_classes
    else:
        read = keras.utils.image_dataset_from_directory
        train = read(f"{data}/train", image_size=size, batch_size=batch, shuffle=work != "probe")
        classes = len(train.class_names)
        test = read(f"{data}/{held}", image_size=size, batch_size=batch, shuffle=False)
        zoom = [layers.RandomRotation(40 / 360), layers.RandomTranslation(0.2, 0.2), layers.RandomShear(0.2, 0.2), layers.RandomZoom(0.2)]
        augment = keras.Sequential([layers.RandomFlip("horizontal"), *(zoom if work == "cnn" else [])])
        if work != "probe":
            train = train.map(lambda image, label: (augment(image, training=True) / 255, label), num_parallel_calls=2)
        else:
            train = train.map(lambda image, label: (image / 255, label), num_parallel_calls=2)
        train, test = train.prefetch(2), test.map(lambda image, label: (image / 255, label)).prefetch(2)
    if work == "probe":
        network = keras.applications.ResNet50(weights=None, include_top=False, pooling="avg")

        def features(images: Any) -> tuple[Any, Any]:
            batches = ([images[i] for i in range(len(images))]) if way == "generator" else list(images)
            maps = [network.predict_on_batch(image) for image, _ in batches]
            return np.concatenate(maps), np.concatenate([np.asarray(label) for _, label in batches])

        return {"score": solved(features(train), features(test))}
    if work == "cnn":
        maps = [layer for width in (32, 32, 64) for layer in (layers.Conv2D(width, 3, activation="relu"), layers.MaxPooling2D())]
        top = [layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dropout(0.5), layers.Dense(classes, activation="softmax")]
        model = keras.Sequential([layers.Input((*size, 3)), *maps, *top])
        optimizer = keras.optimizers.RMSprop(5e-4)
    else:
        base = keras.applications.MobileNetV2(weights=None, include_top=False, pooling="avg", input_shape=(*size, 3))
        model = keras.Sequential([base, layers.Dropout(0.2), layers.Dense(classes, activation="softmax")])
        optimizer = keras.optimizers.Adam(1e-3)
    model.compile(loss="sparse_categorical_crossentropy", optimizer=optimizer, metrics=["accuracy"])
    ends: list[float] = []
    told = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))
    history = model.fit(train, epochs=epochs, validation_data=test, callbacks=[told], verbose=0).history
    return {"score": history["val_accuracy"][-1], **pace(ends)}


def torch_training(work: str, data: str, epochs: int) -> dict[str, float]:
    import torch
    import torch_peer

    torch_peer.define_missing_operators()
    import torchvision
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder

    torch.set_num_threads(2)
    plain = [T.Resize((SIZE[work],) * 2), T.ToTensor()]
    turned = T.RandomAffine(40, translate=(0.2, 0.2), scale=(0.8, 1.2), shear=11.5)
    random = {"cnn": [T.RandomHorizontalFlip(), turned], "mobilenet_v2": [T.RandomHorizontalFlip()], "probe": []}[work]
    folders = [
        ImageFolder(f"{data}/train", T.Compose([plain[0], *random, plain[1]])),
        ImageFolder(f"{data}/{held_out(data)}", T.Compose(plain)),
    ]
    train, test = (
        torch.utils.data.DataLoader(folder, BATCH[work], shuffle=not number and work != "probe", num_workers=2, persistent_workers=True)
        for number, folder in enumerate(folders)
    )
    classes = len(folders[0].classes)
    if work == "probe":
        network = torchvision.models.resnet50()
        network.fc = torch.nn.Identity()
        network = network.eval().to(memory_format=torch.channels_last)

        @torch.inference_mode()
        def features(batches: Iterable) -> tuple[Any, Any]:
            pairs = [(network(image.contiguous(memory_format=torch.channels_last)), label) for image, label in batches]
            return torch.cat([maps for maps, _ in pairs]).numpy(), torch.cat([label for _, label in pairs]).numpy()

        return {"score": solved(features(train), features(test))}
    network = torch_peer.tutorial_cnn(classes) if work == "cnn" else torchvision.models.mobilenet_v2(num_classes=classes)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.RMSprop(network.parameters(), 5e-4) if work == "cnn" else torch.optim.Adam(network.parameters(), 1e-3)
    ends, score = [], 0.0
    for _ in range(epochs):
        network.train()
        for image, label in train:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(image.contiguous(memory_format=torch.channels_last)), label).backward()
            optimizer.step()
        network.eval()
        with torch.inference_mode():
            right = sum(int((network(image).argmax(1) == label).sum()) for image, label in test)
        score = right / len(folders[1])
        ends.append(time.perf_counter())
    return {"score": score, **pace(ends)}


def held_out(data: str) -> str:
    """The folder whose score is told: as imgclf names it, valid/ where there is one."""
    return "valid" if os.path.isdir(f"{data}/valid") else "test"


def solved(train: tuple[Any, Any], test: tuple[Any, Any]) -> float:
    """The test accuracy of scikit-learn's logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return float(make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(*train).score(*test))


def pace(ends: list[float]) -> dict[str, float]:
    return {"epoch": (ends[-1] - ends[0]) / (len(ends) - 1)} if len(ends) > 1 else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=("keras-generator", "keras-dataset", "torch"))
    parser.add_argument("work", choices=BATCH)
    parser.add_argument("data")
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    what = arguments.work, arguments.data, arguments.epochs
    library, _, way = arguments.library.partition("-")
    print(json.dumps(torch_training(*what) if library == "torch" else keras_training(way, *what)))


if __name__ == "__main__":
    main()
