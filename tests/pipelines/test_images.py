"""`VaeImageProcessor`, `load_image` and the image grid, against values worked out by hand.

`tests/parity/test_stable_diffusion_live.py` compares the processor with PyTorch diffusers on many more inputs, exactly.
"""

import http.server
import threading

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from mindone_diffusers.core.errors import CheckpointError, ConfigError
from mindone_diffusers.image_processor import IPAdapterMaskProcessor, VaeImageProcessor
from mindone_diffusers.nn import Module
from mindone_diffusers.utils import load_image, make_image_grid, numpy_to_pil, pt_to_pil


def gradient(width: int, height: int) -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([rows, columns, rows + columns], -1).astype(np.uint8))


def test_preprocess_pil():
    image = gradient(24, 16)
    tensor = VaeImageProcessor().preprocess(image)
    assert tensor.shape == (1, 3, 16, 24) and tensor.dtype == ms.float32
    np.testing.assert_allclose(tensor.asnumpy()[0].transpose(1, 2, 0), np.asarray(image) / 127.5 - 1, atol=1e-6)
    assert VaeImageProcessor().preprocess([gradient(30, 23)] * 2).shape == (2, 3, 16, 24)
    assert VaeImageProcessor(do_resize=False).preprocess(gradient(30, 23)).shape == (1, 3, 23, 30)
    cropped = VaeImageProcessor(vae_scale_factor=1).preprocess(image, crops_coords=(2, 3, 10, 9))
    np.testing.assert_array_equal(cropped.asnumpy(), tensor.asnumpy()[:, :, 3:9, 2:10])


def test_preprocess_arrays_and_tensors():
    array = np.random.default_rng(0).random((2, 16, 8, 3)).astype(np.float32)
    expected = array.transpose(0, 3, 1, 2) * 2 - 1
    processor = VaeImageProcessor()
    for image in (array, list(array), [array], ms.Tensor(array.transpose(0, 3, 1, 2)), [ms.Tensor(a.transpose(2, 0, 1)) for a in array]):
        np.testing.assert_allclose(processor.preprocess(image).asnumpy(), expected, atol=1e-6)
    halved = processor.preprocess(array, height=8)
    np.testing.assert_allclose(halved.asnumpy(), expected[:, :, ::2], atol=1e-6)
    with pytest.warns(FutureWarning, match="from -1.0"):
        shifted = processor.preprocess(array * 0 - 1)
    assert (shifted.asnumpy() == -1).all()
    latents = ms.Tensor(np.ones((1, 4, 5, 5), np.float32))
    assert processor.preprocess(latents) is latents
    whole = processor.preprocess((array * 255).astype(np.uint8))
    assert whole.dtype == ms.float32


def test_masks():
    mask = VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True)
    image = Image.fromarray(np.repeat([[0, 100, 127, 128, 200, 255, 0, 255]], 8, axis=0).astype(np.uint8))
    np.testing.assert_array_equal(mask.preprocess(image).asnumpy()[0, 0, 0], [0, 0, 0, 1, 1, 1, 0, 1])
    region = np.zeros((40, 60), np.uint8)
    region[10:20, 30:34] = 255
    box = VaeImageProcessor.get_crop_region
    assert box(Image.fromarray(region), 10, 10) == (27, 10, 37, 20)
    assert box(Image.fromarray(region), 10, 10, pad=2) == (25, 8, 39, 22)
    assert box(Image.fromarray(region), 60, 10) == (0, 10, 60, 20)
    assert box(Image.fromarray(region), 10, 60) == (30, 3, 34, 27)
    with pytest.raises(ConfigError, match="zero everywhere"):
        box(Image.fromarray(region * 0), 8, 8)


def test_masks_of_ip_adapters():
    left = Image.fromarray(np.repeat([[255] * 16 + [0] * 16], 16, axis=0).astype(np.uint8))
    mask = IPAdapterMaskProcessor().preprocess([left, left.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    assert mask.shape == (2, 1, 16, 32) and set(mask.asnumpy().ravel()) == {0, 1}
    assert mask.asnumpy()[0, 0, :, :16].all() and mask.asnumpy()[1, 0, :, 16:].all()
    factors = IPAdapterMaskProcessor.downsample(mask[0], batch_size=2, num_queries=4 * 8, value_embed_dim=3)
    assert factors.shape == (2, 32, 3)
    rows = factors.asnumpy().reshape(2, 4, 8, 3)
    np.testing.assert_array_equal(rows[..., :3, :], 1)
    np.testing.assert_array_equal(rows[..., 5:, :], 0)
    with pytest.warns(UserWarning, match="a mask of 16 x 32 does not fit an attention map of 33 pixels"):
        odd = IPAdapterMaskProcessor.downsample(mask[0], 1, 33, 1).asnumpy()
    assert odd.shape == (1, 33, 1) and odd[0, -3:, 0].tolist() == [0, 0, 0]


def test_masks_are_downsampled_in_a_graph():
    class Masked(Module):
        def construct(self, mask, x):
            return x * IPAdapterMaskProcessor.downsample(mask, x.shape[0], x.shape[1], x.shape[2])

    rng, model = np.random.default_rng(0), Masked()
    mask, x = ms.Tensor(rng.random((1, 24, 16), np.float32)), ms.Tensor(rng.random((2, 96, 5), np.float32))
    np.testing.assert_array_equal(ms.jit(model)(mask, x).asnumpy(), model(mask, x).asnumpy())


def test_resize_modes():
    processor, image = VaeImageProcessor(resample="nearest"), Image.new("RGB", (16, 8), (255, 0, 0))
    assert processor.resize(image, 32, 32).size == (32, 32)
    assert set(processor.resize(image, 32, 32, "fill").getdata()) == {(255, 0, 0)}
    assert set(processor.resize(image, 32, 32, "crop").getdata()) == {(255, 0, 0)}
    with pytest.raises(ConfigError, match="'fill'"):
        processor.resize(image, 8, 8, "stretch")
    with pytest.raises(ConfigError, match="Pillow images"):
        processor.resize(np.zeros((1, 8, 8, 3)), 8, 8, "fill")


def test_overlay_keeps_what_the_mask_leaves():
    processor = VaeImageProcessor()
    red, blue = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    mask = Image.fromarray(np.repeat([[0] * 8 + [255] * 8], 16, axis=0).astype(np.uint8))
    row = np.asarray(processor.apply_overlay(mask, red, blue))[0]
    assert (row[:8] == (255, 0, 0)).all() and (row[8:] == (0, 0, 255)).all()
    corner = np.asarray(processor.apply_overlay(Image.new("L", (16, 16), 255), red, blue, crop_coords=(0, 0, 4, 4)))
    assert (corner[:4, :4] == (0, 0, 255)).all()


def test_postprocess():
    processor = VaeImageProcessor()
    tensor = ms.Tensor(np.array([-2.0, -1.0, 0.0, 1.0], np.float32).reshape(2, 1, 1, 2))
    np.testing.assert_array_equal(processor.postprocess(tensor, "np").ravel(), [0, 0, 0.5, 1])
    np.testing.assert_array_equal(processor.postprocess(tensor, "ms", [True, False]).asnumpy().ravel(), [0, 0, 0, 1])
    assert [image.mode for image in processor.postprocess(tensor)] == ["L", "L"]
    assert processor.postprocess(tensor, "latent") is tensor
    with pytest.raises(ConfigError, match="'webp'"):
        processor.postprocess(tensor, "webp")
    with pytest.raises(ConfigError, match="ndarray"):
        processor.postprocess(np.zeros((1, 3, 8, 8)))


@pytest.mark.parametrize("image", [3, None, [], ["a.png"], np.zeros(3), [np.zeros((2, 2)), None]], ids=str)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ConfigError, match="expected Pillow images"):
        VaeImageProcessor().preprocess(image)


def test_both_conversions_are_refused():
    with pytest.raises(ConfigError, match="do_convert_grayscale"):
        VaeImageProcessor(do_convert_rgb=True, do_convert_grayscale=True)


def test_pil_helpers():
    array = np.random.default_rng(0).random((2, 4, 6, 3)).astype(np.float32)
    expected = (array * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(np.stack([np.asarray(image) for image in numpy_to_pil(array)]), expected)
    from_tensor = pt_to_pil(ms.Tensor(array.transpose(0, 3, 1, 2) * 2 - 1))
    assert np.abs(np.stack([np.asarray(image) for image in from_tensor]).astype(int) - expected).max() <= 1
    grid = make_image_grid([Image.new("RGB", (4, 6), colour) for colour in ("red", "lime", "blue", "white")], rows=2, cols=2)
    assert grid.size == (8, 12) and grid.getpixel((5, 1)) == (0, 255, 0) and grid.getpixel((1, 7)) == (0, 0, 255)
    assert make_image_grid([grid], 1, 1, resize=5).size == (5, 5)
    with pytest.raises(ConfigError, match="3 images"):
        make_image_grid([grid] * 3, 2, 2)


def test_load_image(tmp_path):
    image = gradient(12, 7)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image.convert("RGBA").save(tmp_path / "turned.png", exif=exif)
    loaded = load_image(tmp_path / "turned.png")
    assert loaded.size == (7, 12) and loaded.mode == "RGB"
    assert load_image(str(tmp_path / "turned.png"), lambda picture: picture.convert("L")).mode == "L"
    assert load_image(image).size == (12, 7)
    for wrong in (tmp_path / "absent.png", 5, np.zeros((2, 2))):
        with pytest.raises(ConfigError):
            load_image(wrong)


def test_load_image_from_a_url(tmp_path):
    gradient(12, 7).save(tmp_path / "picture.png")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert np.array_equal(np.asarray(load_image(f"{url}/picture.png")), np.asarray(gradient(12, 7)))
        with pytest.raises(CheckpointError, match="absent"):
            load_image(f"{url}/absent.png")
        server.shutdown()
