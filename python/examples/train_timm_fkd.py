# SPDX-License-Identifier: Apache-2.0
"""train_timm.py, changed to train from a label set."""

import argparse

import fkdb.torch
import timm
import timm.optim
import timm.scheduler
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
dataset = fkdb.torch.FkdDataset(images, arguments.db, 4, input_size=arguments.input_size)
loader = torch.utils.data.DataLoader(dataset, arguments.batch_size // 4, sampler=fkdb.torch.FkdSampler(dataset),
                                     collate_fn=fkdb.torch.collate, num_workers=arguments.workers)
model = timm.create_model(arguments.model, num_classes=len(images.classes)).to(device)
criterion = fkdb.torch.SoftTargetLoss()
optimizer = timm.optim.create_optimizer_v2(model, opt="sgd", lr=arguments.lr, momentum=0.9, weight_decay=1e-4)
scheduler = timm.scheduler.CosineLRScheduler(optimizer, t_initial=arguments.epochs)

for epoch in range(0, arguments.epochs, 4):
    losses = []
    for inputs, labels in loader:
        loss = criterion(model(inputs.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    scheduler.step(epoch + 4)
    print(f"epoch {epoch}: loss {sum(losses) / len(losses):.4f}", flush=True)
torch.save(model.state_dict(), arguments.out)
