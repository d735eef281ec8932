"""Episodes of images, and methods on images."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.ndimage import affine_transform
from stamps import NET, stamped

from metaprior import Spec, fit
from metaprior.heads import Categorical, Gaussian
from metaprior.methods import MAML, METHODS
from metaprior.methods.embedded import Embedded, mapped
from metaprior.nets.conv import Conv4
from metaprior.nets.mlp import mlp, network
from metaprior.protocols.few_shot_images.predicted import compact
from metaprior.sources import Episodes, Sinusoid
from metaprior.sources.episodes import warp
from metaprior.task import Data, Task, pad
from metaprior.testing import check_method


def stamps(data):
    return np.rint(np.asarray(data.x)[:, :2] * 255).astype(int)


def test_episodes_hold_different_images_of_the_classes_they_say():
    pixels, label = stamped()
    source = Episodes.of(pixels, label, way=5, shot=2, query=3)
    seen = set()
    for task in map(jax.jit(lambda k: source(k)), jr.split(jr.key(0), 20)):
        rows = np.concatenate([stamps(task.support), stamps(task.query)])
        y = np.concatenate([task.support.y, task.query.y])[:, 0]
        assert len({tuple(row) for row in rows}) == 25  # no image twice
        for c in range(5):
            assert len(set(rows[y == c, 0])) == 1 and (y == c).sum() == 5
        assert len(set(rows[:, 0])) == 5
        seen |= set(rows[:, 0])
    assert seen == set(range(12))


def test_classes_with_too_few_images_and_those_left_out_are_never_drawn():
    pixels, label = stamped()
    label = np.where(label == 3, -1, label)
    label[label == 4] = [4, 4, -1, -1, -1, -1]
    source = Episodes.of(pixels, label, way=5, shot=1, query=2, padded=20)
    assert int((source.count > 0).sum()) == 10 and source.count.shape == (20,)
    tasks = jax.jit(jax.vmap(source))(jr.split(jr.key(0), 60))
    drawn = np.rint(np.asarray(tasks.support.x)[..., 0] * 255)
    assert set(drawn.ravel()) == set(range(12)) - {3, 4}
    with pytest.raises(
        ValueError, match="5-way tasks need 5 classes of at least 7 images; there are 0"
    ):
        Episodes.of(pixels, label, way=5, shot=1, query=6)


@pytest.mark.slow
def test_turned_classes_are_classes_of_their_own():
    pixels, label = stamped(classes=3)
    source = Episodes.of(pixels, label, way=8, shot=1, query=2, rotations=True)
    task = source(jr.key(1))
    images = np.asarray(task.support.x).reshape(8, 8, 8)
    corners = [[np.rot90(image, -k)[0, 1] >= 0 for k in range(4)] for image in images]
    assert np.array(corners).all()
    _, turn = source.classes(jr.split(jr.key(1), 4)[0])
    upright = [np.rot90(image, -int(k)) for image, k in zip(images, turn)]
    classes, _ = source.classes(jr.split(jr.key(1), 4)[0])
    np.testing.assert_array_equal(np.rint(np.array(upright)[:, 0, 0] * 255), classes)


def test_tasks_within_a_group():
    pixels, label = stamped()
    group = label // 4  # three groups of four
    one = Episodes.of(pixels, label, way=4, shot=1, query=1, group=group, within=1.0)
    tasks = jax.jit(jax.vmap(one))(jr.split(jr.key(0), 30))
    groups = np.rint(np.asarray(tasks.support.x)[..., 0] * 255).astype(int) // 4
    assert (groups == groups[:, :1]).all() and len(set(groups[:, 0])) == 3
    with pytest.raises(ValueError, match=r"No group has 5 classes.*the largest has 4"):
        Episodes.of(pixels, label, way=5, group=group, within=0.5)


def test_slots_are_more_labels_than_classes():
    pixels, label = stamped()
    source = Episodes.of(pixels, label, way=3, shot=2, query=2, slots=9)
    tasks = jax.jit(jax.vmap(source))(jr.split(jr.key(0), 40))
    y = np.asarray(tasks.support.y)[..., 0].astype(int)
    assert set(y.ravel()) == set(range(9)) and all(len(set(row)) == 3 for row in y)
    p = np.eye(9)[np.asarray(tasks.query.y)[..., 0].astype(int)]
    small, true, names = compact(p, np.asarray(tasks.query.y)[..., 0].astype(int), y)
    assert small.shape == (40, 6, 3) and (small.argmax(-1) == true).all() and names.shape == (40, 3)


def test_warping_is_the_affine_map_of_scipy():
    """The two passes are the affine map up to interpolation, which is small in a smooth image."""
    i, j = np.mgrid[:28, :28]
    image = np.exp(-((i - 11.0) ** 2 + 0.5 * (j - 15.0) ** 2) / 40)
    np.testing.assert_allclose(
        warp(jnp.asarray(image)[..., None], 0.0, key=jr.key(0))[..., 0], image, atol=1e-6
    )
    for seed in range(4):
        ours = warp(jnp.asarray(image)[..., None], 1.0, key=jr.key(seed))[..., 0]
        u = np.asarray(jr.uniform(jr.key(seed), (7,), minval=-1.0, maxval=1.0))
        cos, sin = np.cos(u[0] * np.pi / 18), np.sin(u[0] * np.pi / 18)
        m = (
            np.array([[cos, -sin], [sin, cos]])
            @ [[1, 0.3 * u[1]], [0.3 * u[2], 1]]
            @ np.diag(1 + 0.2 * u[3:5])
        )
        (a, b), (c, d) = m  # column j is read at a j + b i, row i at c j + d i
        linear = np.array([[d, c], [b, a]])
        # along rows first: a shift across is that of the row read, the shift down comes before it
        across, down = u[5] * 2, u[6] * 2
        shift = np.array([down, across + b / d * down])
        middle = np.array([13.5, 13.5])
        theirs = affine_transform(
            image, linear, middle + shift - linear @ middle, order=1, mode="nearest"
        )
        assert np.abs(ours - theirs).max() < 0.03


def test_a_spec_names_the_network_and_without_it_nothing_changes():
    spec = Spec(256, Categorical(3), net=NET)
    plain = Spec(3, Categorical(3))
    same = network(plain, 4, 8, 2, key=jr.key(0))
    jax.tree.map(
        np.testing.assert_array_equal,
        *(eqx.filter(n, eqx.is_array) for n in (same, mlp(3, 4, 8, 2, key=jr.key(0)))),
    )
    for name in (
        "maml",
        "protonet",
        "matching",
        "metaqda",
        "versa",
        "platipus",
        "abml",
        "vampire",
        "llama",
        "bmaml",
        "dkt",
        "bnn",
    ):
        learner = eqx.filter_eval_shape(
            lambda key, n=name: METHODS[n].init(spec, key=key), jr.key(0)
        )
        kinds = [type(m) for m in jax.tree.leaves(learner, is_leaf=lambda m: isinstance(m, Conv4))]
        assert Conv4 in kinds, name
    alpaca = METHODS["alpaca"].init(Spec(256, Gaussian(1), net=NET), key=jr.key(0))
    assert isinstance(alpaca.features, Conv4)


@pytest.mark.slow
def test_contract_of_methods_on_images():
    def image(spec, *, key, **hyper):
        return Embedded.init(spec, key=key, base="cnp", features=4, width=8, depth=1)

    check_method(image, head=Categorical(3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["protonet", "matching", "metaqda", "versa", "embedded"])
def test_a_loss_in_one_pass_is_that_of_two(name):
    """What the posterior gives to the query rows; of VERSA and a black box, what two passes through
    the network give.
    """
    spec = Spec(256, Categorical(3), net=NET)
    kind = Embedded if name == "embedded" else METHODS[name]
    method = kind.init(spec, key=jr.key(0))
    task = Task(
        Data.of(jr.normal(jr.key(1), (5, 256)), [0, 1, 2, 0, 1]),
        Data.of(jr.normal(jr.key(2), (4, 256)), [2, 1, 0, 0]),
    )
    task = Task(pad(task.support, 6), pad(task.query, 7))
    loss, two = (
        method.loss(task, key=jr.key(3)),
        Task(mapped(method.net, task.support), mapped(method.net, task.query)),
    )
    if name == "embedded":
        other = method.base.loss(two, key=jr.key(3))
    elif name == "versa":
        other = eqx.tree_at(lambda m: m.net, method, eqx.nn.Identity()).loss(two, key=jr.key(3))
    else:
        predicted = method.posterior(task.support, key=jr.key(3)).predict(
            task.query.x, key=jr.key(3), samples=1
        )
        other = -task.query.mean(predicted.log_prob(task.query.y))
    np.testing.assert_allclose(loss, other, rtol=1e-5)


def test_embedded_refuses_a_pooled_column():
    with pytest.raises(ValueError, match="a pooled prediction among them would be lost"):
        Embedded.init(Spec(3, Gaussian(1), 1), key=jr.key(0))


@pytest.mark.slow
def test_tasks_one_after_another_train_as_all_at_once():
    maml = MAML.init(Spec(1, Gaussian(1)), key=jr.key(0), width=8)

    def run(at_once):
        return fit(maml, Sinusoid(), key=jr.key(1), steps=4, batch=6, every=2, at_once=at_once)

    whole, parts = run(None), run(2)
    np.testing.assert_allclose(whole.losses, parts.losses, rtol=1e-4)
    left, right = (jax.tree.leaves(eqx.filter(f.method, eqx.is_array)) for f in (whole, parts))
    for a, b in zip(left, right):
        np.testing.assert_allclose(a, b, atol=1e-4)
    with pytest.raises(ValueError, match="at_once that divides batch = 6; got 4"):
        run(4)
