# SPDX-License-Identifier: Apache-2.0
"""Labels random crops of every image with a teacher of torchvision or timm.

    label.py train/ labels.fkdb --model resnet50                              torchvision, its published weights
    label.py train/ labels.fkdb --model timm:tf_efficientnet_l2.ns_jft_in1k   timm, its published weights
    label.py train/ labels.fkdb --model resnet18 --weights weights.pt         weights of your own

Stopped or killed, the same command goes on where it ended.
"""

import argparse

import fkdb
import torch

parser = argparse.ArgumentParser()
parser.add_argument("images", help="a folder of images, class/name.JPEG")
parser.add_argument("out", help="the label set, NAME.fkdb")
parser.add_argument("--model", required=True)
parser.add_argument("--weights", help="a state dict; without it the model's published one")
parser.add_argument("--crops", type=int, default=200)
parser.add_argument("--top-k", type=int, default=5)
parser.add_argument("--input-size", type=int, default=224)
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()

images = fkdb.open_images(arguments.images)
library, _, name = arguments.model.rpartition(":")
own = {"num_classes": len(images.class_names)} if arguments.weights else {}
if library == "timm":
    import timm
    model = timm.create_model(name, pretrained=not arguments.weights, **own)
    config = timm.data.resolve_model_data_config(model)
    pixels = {"mean": config["mean"], "std": config["std"], "interpolation": config["interpolation"]}
else:
    import torchvision
    model = torchvision.models.get_model(name, weights=None if arguments.weights else "DEFAULT", **own)
    pixels = {}
if arguments.weights:
    model.load_state_dict(torch.load(arguments.weights, weights_only=True))
device = "cuda" if torch.cuda.is_available() else "cpu"
model.eval().to(device)
num_classes = model(torch.zeros(1, 3, arguments.input_size, arguments.input_size, device=device)).shape[1]

spec = fkdb.LabelSpec("marginal-smoothing", num_classes=num_classes, top_k=arguments.top_k)
with torch.inference_mode(), fkdb.Writer(
        arguments.out, spec, images.keys, crops=arguments.crops, seed=arguments.seed, input_size=arguments.input_size,
        class_names=images.class_names if len(images.class_names) == num_classes else (), data_set=images.name,
        teacher=arguments.model, teacher_sha256=fkdb.state_dict_sha256(model), resume=True, **pixels) as writer:
    for ordinal in range(len(writer), len(images)):
        image = images[ordinal]
        boxes, flips = writer.sample(image.key, image.width, image.height)
        inputs = torch.from_numpy(writer.inputs(image, boxes, flips)).to(device)
        writer.append(image, None, boxes, flips, logits=model(inputs))
print(f"{arguments.out}: {writer.manifest['counts']['crops']} crops, {writer.manifest['digest']}")
