# SPDX-License-Identifier: Apache-2.0
"""Plain training with timm's models, optimizers and schedules: what train_timm_fkd.py is before it is changed."""

import argparse

import timm
import timm.optim
import timm.scheduler
import torch
import torchvision
from torchvision.transforms import v2

parser = argparse.ArgumentParser()
parser.add_argument("train", help="a folder of images, class/name.JPEG")
parser.add_argument("out", help="the weights")
parser.add_argument("--model", default="resnet18")
parser.add_argument("--epochs", type=int, default=100)
parser.add_argument("--batch-size", type=int, default=256)
parser.add_argument("--input-size", type=int, default=224)
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--workers", type=int, default=8)
arguments = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
transform = v2.Compose([v2.RandomResizedCrop(arguments.input_size), v2.RandomHorizontalFlip(), v2.PILToTensor(),
                        v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
images = torchvision.datasets.ImageFolder(arguments.train, transform)
loader = torch.utils.data.DataLoader(images, arguments.batch_size, shuffle=True, num_workers=arguments.workers)
model = timm.create_model(arguments.model, num_classes=len(images.classes)).to(device)
criterion = torch.nn.CrossEntropyLoss()
optimizer = timm.optim.create_optimizer_v2(model, opt="sgd", lr=arguments.lr, momentum=0.9, weight_decay=1e-4)
scheduler = timm.scheduler.CosineLRScheduler(optimizer, t_initial=arguments.epochs)

for epoch in range(arguments.epochs):
    losses = []
    for inputs, labels in loader:
        loss = criterion(model(inputs.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    scheduler.step(epoch + 1)
    print(f"epoch {epoch}: loss {sum(losses) / len(losses):.4f}", flush=True)
torch.save(model.state_dict(), arguments.out)
