"""The command `run` beside transformers, from a file to what is printed and drawn, on folders that it writes."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from models.cli import main
from models.vision.images import read_image

pytestmark = pytest.mark.parity

ENCODER = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24}
WORDS = ["<|startoftext|>", "<|endoftext|>", *"abcdt", *(f"{letter}</w>" for letter in "abcdt"), "ca", "cat</w>"]
SIDE = 64


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


@pytest.fixture
def run(monkeypatch, capsys):
    def run(kind, folder, picture, *words):
        arguments = ["run", kind, "--checkpoint", folder, "--image", picture, *words]
        monkeypatch.setattr(sys, "argv", ["models", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        assert (stopped.value.code, err) == (0, "")
        return [line.split() for line in out.splitlines()]

    return run


@pytest.fixture(params=[(45, 70), (70, 45), (64, 64), (9, 13)], ids=str)
def picture(request, tmp_path):
    """Return the path of a picture with blots of colour, turned by EXIF."""
    rng = np.random.default_rng(0)
    blots = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    blots.resize(request.param, Image.Resampling.BICUBIC).save(tmp_path / "picture.png", exif=exif)
    return tmp_path / "picture.png"


def randomised(torch, model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def test_probabilities_of_vit(torch, run, picture, tmp_path):
    import transformers
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    names = {i: f"class{i}" for i in range(7)}
    config = transformers.ViTConfig(**ENCODER, image_size=32, patch_size=8, id2label=names)
    model = randomised(torch, transformers.ViTForImageClassification(config))
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32}, resample=3)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with torch.no_grad():  # a path is turned upright, a picture in memory is not
        pixels = processor(str(picture), return_tensors="pt")
        expected = model(**pixels).logits.softmax(-1)[0].numpy()
    rows = run("vit", tmp_path, picture, "--top", 7)[1:]
    assert [name for _, name in rows] == [names[i] for i in np.argsort(-expected)]
    np.testing.assert_allclose([float(p) for p, _ in rows], np.sort(expected)[::-1], atol=6e-5)


def test_scores_of_clip(torch, run, picture, tmp_path):
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    config = transformers.CLIPConfig(
        projection_dim=10,
        text_config=ENCODER | {"vocab_size": 14, "max_position_embeddings": 8, "eos_token_id": 1, "bos_token_id": 0},
        vision_config=ENCODER | {"image_size": 32, "patch_size": 8},
    )
    model = randomised(torch, transformers.CLIPModel(config))
    (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(WORDS)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    images = CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})
    processor = transformers.CLIPProcessor(images, tokenizer)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    captions = ["cat", "ab", "dab"]
    with torch.no_grad():
        inputs = processor(text=captions, images=str(picture), return_tensors="pt", padding=True)
        scores = model(**inputs).logits_per_image[0]
    rows = run("clip", tmp_path, picture, *(word for caption in captions for word in ("--caption", caption)))[1:]
    order = np.argsort(-scores.numpy())
    assert [caption for *_, caption in rows] == [captions[i] for i in order]
    np.testing.assert_allclose([float(score) for _, score, _ in rows], scores.numpy()[order], atol=6e-3)
    np.testing.assert_allclose([float(p) for p, *_ in rows], scores.softmax(-1).numpy()[order], atol=6e-5)


@pytest.mark.parametrize("prompt", ["point", "points", "box"])
def test_masks_of_sam(torch, run, picture, tmp_path, prompt):
    import transformers
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    width = {"hidden_size": 16}
    patches = {"image_size": SIDE, "patch_size": 8}
    config = transformers.SamConfig(
        vision_config=patches
        | {
            "hidden_size": 24,
            "output_channels": 16,
            "num_pos_feats": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "window_size": 3,
            "global_attn_indexes": [1],
            "mlp_dim": 20,
        },
        prompt_encoder_config=width | patches | {"mask_input_channels": 8},
        mask_decoder_config=width | {"mlp_dim": 12, "num_attention_heads": 2, "iou_head_hidden_dim": 10},
    )
    model = randomised(torch, transformers.SamModel(config))
    images = SamImageProcessorPil(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})
    processor = transformers.SamProcessor(images)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    words, prompts = {
        "point": (["--point", "3,4"], {"input_points": [[[[3, 4]]]], "input_labels": [[[1]]]}),
        "points": (
            ["--point", "3,4", "--point", "7.5,6,0"],
            {"input_points": [[[[3, 4], [7.5, 6]]]], "input_labels": [[[1, 0]]]},
        ),
        "box": (["--box", "1,2,8,9"], {"input_boxes": [[[1, 2, 8, 9]]]}),
    }[prompt]
    with torch.no_grad():
        inputs = processor(str(picture), return_tensors="pt", **prompts)
        sizes = [inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes")]
        outputs = model(**inputs.to(torch.float32), multimask_output=prompt == "point")
        (masks,) = images.post_process_masks(outputs.pred_masks, *sizes)
    scores, masks = outputs.iou_scores[0, 0].numpy(), masks[0].numpy()
    rows = run("sam", tmp_path, picture, *words, "--output", tmp_path / "drawn.png")[1:-1]
    np.testing.assert_allclose([float(row[1]) for row in rows], scores, atol=2e-4)
    np.testing.assert_allclose([float(row[2].rstrip("%")) for row in rows], 100 * masks.mean(axis=(1, 2)), atol=6e-3)
    changed = (read_image(tmp_path / "drawn.png") != read_image(picture)).any(axis=-1)
    clear = np.ones_like(changed)
    clear[:13, :13] = False  # where the prompt is drawn
    np.testing.assert_array_equal(changed[clear], masks[np.argmax(scores)][clear])
