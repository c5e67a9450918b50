"""Files as other libraries save models, made without them."""

import json

import torch


def pythae_folder(folder, name="RAE_L2_Config", has_posterior=False, shape=(1, 32, 32), latent_dim=5, **stated):
    """A folder as Pythae 0.1.2 saves a model with its default networks: their names and shapes, weights of ours."""
    pixels = torch.Size(shape).numel()
    layers = {
        "decoder.layers.0.0": (512, latent_dim),
        "decoder.layers.1.0": (pixels, 512),
        "encoder.layers.0.0": (512, pixels),
        "encoder.embedding": (latent_dim, 512),
        **({"encoder.log_var": (latent_dim, 512)} if has_posterior else {}),
    }
    generator = torch.Generator().manual_seed(0)
    state = {}
    for layer, size in layers.items():
        state[f"{layer}.weight"] = 0.05 * torch.randn(size, generator=generator)
        state[f"{layer}.bias"] = 0.05 * torch.randn(size[0], generator=generator)
    config = {"name": name, "input_dim": list(shape), "latent_dim": latent_dim}
    config |= {"uses_default_encoder": True, "uses_default_decoder": True, **stated}
    folder.mkdir(exist_ok=True)
    (folder / "environment.json").write_text('{"name": "EnvironmentConfig", "python_version": "3.11"}')
    (folder / "model_config.json").write_text(json.dumps(config))
    torch.save({"model_state_dict": state}, folder / "model.pt")
    return folder, state
