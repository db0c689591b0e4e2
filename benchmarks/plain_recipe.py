"""Training as an ordinary user of torchvision writes it, which the loop of a search is compared with.

Transforms on PIL images in worker processes, float32, contiguous, SGD, cross entropy. The pixels are arrays
in memory, as in `torchvision.datasets.CIFAR10`, so that no file is decoded during training.
"""

from collections.abc import Callable, Iterator
from itertools import islice

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from nas_recalib.data import Resident


class Pixels(Dataset[tuple[Tensor, int]]):
    """Data set of images in memory, passed through PIL to the transforms."""

    def __init__(self, data: Resident, transform: Callable[[Image.Image], Tensor]) -> None:
        self.pixels = data.train_images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = data.train_labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def plain_loader(data: Resident, batch: int, workers: int, device: torch.device, seed: int) -> DataLoader:
    """Return a loader of shuffled, cropped and mirrored training images on the CPU."""
    side = data.resolution
    transform = transforms.Compose(
        [
            transforms.RandomCrop(side, padding=side // 8),
            *([transforms.RandomHorizontalFlip()] if data.flips else []),
            transforms.ToTensor(),
            transforms.Normalize((data.mean / 255).tolist(), (data.std / 255).tolist()),
        ]
    )
    return DataLoader(
        Pixels(data, transform),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(seed),
    )


def plain_training(network: nn.Module, loader: DataLoader, device: torch.device) -> Callable[[int], None]:
    """Return a function that trains for a number of steps and continues in the next call."""
    network.to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    criterion = nn.CrossEntropyLoss()
    batches = _epochs(loader)

    def train(steps: int) -> None:
        for images, labels in islice(batches, steps):
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            loss = criterion(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


def _epochs(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader
