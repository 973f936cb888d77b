# SPDX-License-Identifier: Apache-2.0
"""train.py, changed to train from a label set."""

import argparse

import fkdb.torch
import torch
import torchvision

parser = argparse.ArgumentParser()
parser.add_argument("train", help="a folder of images, class/name.JPEG")
parser.add_argument("db", help="its label set")
parser.add_argument("out", help="the weights")
parser.add_argument("--model", default="resnet18")
parser.add_argument("--epochs", type=int, default=100)
parser.add_argument("--batch-size", type=int, default=256)
parser.add_argument("--input-size", type=int, default=224)
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--workers", type=int, default=8)
arguments = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
images = torchvision.datasets.ImageFolder(arguments.train)
loader = fkdb.torch.FkdLoader(arguments.train, arguments.db, 4, arguments.batch_size, workers=arguments.workers,
                              input_size=arguments.input_size)
model = torchvision.models.get_model(arguments.model, num_classes=len(images.classes)).to(device)
criterion = fkdb.torch.SoftTargetLoss()
optimizer = torch.optim.SGD(model.parameters(), arguments.lr, momentum=0.9, weight_decay=1e-4)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.epochs // 4)

for epoch in range(0, arguments.epochs, 4):
    losses = []
    for inputs, labels in loader:
        loss = criterion(model(inputs.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    scheduler.step()
    print(f"epoch {epoch}: loss {sum(losses) / len(losses):.4f}", flush=True)
torch.save(model.state_dict(), arguments.out)
