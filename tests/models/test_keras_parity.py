"""Every family answers as Keras applications' network does, from the files that Keras writes for it and the same pictures."""

import importlib
import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
from converted import compile_quickly, difference, network
from flax import nnx

from imgclf.models import layers
from imgclf.models.weights import conversion, pretrained

os.environ["KERAS_BACKEND"] = "jax"
keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of numpy, of Keras's own code

CLASSES = 10
# our name: Keras's builder, its module of preprocess_input, (height, width), options of the builder and of our head
CASES = {
    "vgg16": ("VGG16", "vgg16", (32, 64), {}, {"pool_size": (1, 2)}),
    "vgg19": ("VGG19", "vgg19", (32, 64), {}, {"pool_size": (1, 2)}),
    "mobilenet_v2": ("MobileNetV2", "mobilenet_v2", (64, 96), {"alpha": 1.0}, {}),
    "mobilenet_v2_035": ("MobileNetV2", "mobilenet_v2", (64, 96), {"alpha": 0.35}, {}),
    "inception_v3": ("InceptionV3", "inception_v3", (80, 96), {}, {}),
    "xception": ("Xception", "xception", (80, 96), {}, {}),
    "densenet121": ("DenseNet121", "densenet", (64, 96), {}, {}),
    "resnet50": ("ResNet50", "resnet50", (64, 96), {}, {}),
    "efficientnet_b0": ("EfficientNetB0", "efficientnet", (64, 96), {}, {}),
    "efficientnet_b1": ("EfficientNetB1", "efficientnet", (64, 96), {}, {}),
    "efficientnet_v2_s": ("EfficientNetV2S", "efficientnet_v2", (64, 96), {}, {}),
    "convnext_tiny": ("ConvNeXtTiny", "convnext", (64, 96), {}, {}),
}
SAVED_WHOLE = ("mobilenet_v2_035", "inception_v3", "xception", "efficientnet_b0", "convnext_tiny")  # as a model in the legacy .h5, too


def build(name):
    """Keras's network with random weights that keep its activations in bounds."""
    builder, _, size, options, _ = CASES[name]
    # Weights of our own take the place of Keras's initial ones, which XLA would compile for every shape.
    with keras.StatelessScope(initialize_variables=False):
        model = getattr(keras.applications, builder)(
            weights=None, classes=CLASSES, classifier_activation=None, input_shape=(*size, 3), **options
        )
    names = ["/".join(variable.path.split("/")[-2:]) for variable in model.weights]
    weights = random_weights.keras_weights({key: variable.shape for key, variable in zip(names, model.weights, strict=True)}, name)
    if name in ("vgg16", "vgg19", "resnet50"):  # want pixels of -128 to 128, beside which biases would be lost
        weights[names[0]] /= 64
    for key, variable in zip(names, model.weights, strict=True):
        variable.assign(weights[key])
    if builder in ("EfficientNetB0", "EfficientNetB1"):  # normalises within, by weights: ImageNet's mean and variance
        normalization = model.get_layer("normalization")
        for variable, value in zip(normalization.weights, (conversion.IMAGENET_MEAN, np.square(conversion.IMAGENET_STD), 1), strict=True):
            variable.assign(value)
        normalization.finalize_state()
    keras.utils.clear_session()  # the next network's layers are counted from 0; and no variable waits for a value any more
    return model


def answer(model, images):
    state = [[variable.value for variable in group] for group in (model.trainable_variables, model.non_trainable_variables)]
    apply = compile_quickly(lambda *state_and_images: model.stateless_call(*state_and_images, training=False)[0], *state, images)
    return np.asarray(apply(*state, images))


# Second proofs: test_golden.py compares torch's VGG16, and the other networks, at every run; MobileNetV2 0.35 is compared here.
_SLOW = ("vgg16", "vgg19", "mobilenet_v2", "inception_v3", "xception", "densenet121")
_SLOW += ("efficientnet_b0", "efficientnet_b1", "efficientnet_v2_s", "convnext_tiny")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in _SLOW else name for name in CASES])
def test_logits_equal_keras(name, tmp_path):
    _, module, size, _, head = CASES[name]
    model = build(name)
    model.save_weights(tmp_path / "random.weights.h5")
    pixels = np.round(255 * np.clip(random_weights.images(2, *size) / 4 + 0.5, 0, 1))
    with ThreadPoolExecutor(1) as pool:  # compiles both at once
        preprocess = importlib.import_module(f"keras.applications.{module}").preprocess_input
        answered = pool.submit(answer, model, preprocess(pixels.copy()))
        entry = pretrained.find(f"path:{tmp_path / 'random.weights.h5'}", name)
        ours = network(entry, pixels.shape, CLASSES, **head)
        theirs = answered.result()
    random_weights.assert_telling(theirs)
    *weights, new = pretrained.load(entry, ours.params_like, ours.batch_stats_like, own_head=True)
    assert not new
    logits, _ = ours.apply(*weights, ((pixels / 255 - entry.mean) / entry.std).astype(np.float32))
    assert difference(logits, theirs) < 1e-4

    if name in SAVED_WHOLE:
        model.save(tmp_path / "model.h5")
        entry = pretrained.find(f"path:{tmp_path / 'model.h5'}", name)
        *again, _ = pretrained.load(entry, ours.params_like, ours.batch_stats_like, own_head=True)
        jax.tree.map(np.testing.assert_array_equal, again, weights)


def test_training_mode_equals_keras():
    theirs = keras.layers.BatchNormalization()
    theirs.build((None, None, None, 6))
    numbers = [random_weights.keras_weights({f"bn/{v.name}": v.shape}, "")[f"bn/{v.name}"] for v in theirs.weights]
    theirs.set_weights(numbers)
    maps = random_weights.images(4, 5, 6).reshape(2, 10, 3, 6)
    expected = np.asarray(theirs(maps, training=True))

    ours = layers.BatchNorm(6, momentum=0.99, epsilon=1e-3, unbiased=False, rngs=nnx.Rngs(0))
    for variable, value in zip((ours.scale, ours.bias, ours.mean, ours.var), numbers, strict=True):
        variable[...] = jnp.asarray(value)
    np.testing.assert_allclose(ours(jnp.asarray(maps), train=True), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.mean[...], theirs.moving_mean, rtol=1e-6)
    np.testing.assert_allclose(ours.var[...], theirs.moving_variance, rtol=1e-6)
    assert np.abs(np.asarray(theirs.moving_variance) - numbers[3]).max() > 1e-3
