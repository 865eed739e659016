#!/usr/bin/env python3
"""Trains the embedded network: ResNet-20 on CIFAR-10, and writes models/resnet20-cifar10.onnx.

    python models/train_resnet20.py CIFAR10_DIR [--epochs 26] [--threads 2] [--out models/resnet20-cifar10.onnx]

CIFAR10_DIR holds the official binary batches (data_batch_1..5.bin, test_batch.bin).
Needs PyTorch and onnx from PyPI, on a CPU. models/README.md says what came out of it.

ResNet-20 as in He et al. 2016 (arXiv 1512.03385, section 4.2) with option-B shortcuts (1x1 convolution + batch
normalisation); one-cycle SGD with Nesterov momentum, label smoothing, alternating flips, padded random crops and an
exponential moving average of the weights.
"""
import argparse, json, os, time
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.short = None
        if stride != 1 or cin != cout:
            self.short = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.short is None else self.short(x)))


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths, blocks, cin = (16, 32, 64), [], 16
        for stage, w in enumerate(widths):
            for i in range(3):
                blocks.append(Block(cin, w, 2 if stage and i == 0 else 1))
                cin = w
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(64, 10)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out")
        for m in self.modules():
            if isinstance(m, Block):
                nn.init.zeros_(m.bn2.weight)

    def forward(self, x):
        return self.fc(self.blocks(F.relu(self.bn(self.stem(x)))).mean((2, 3)))


def load(folder, names):
    raw = np.concatenate([np.fromfile(os.path.join(folder, n), np.uint8).reshape(-1, 3073) for n in names])
    x = torch.from_numpy(raw[:, 1:].reshape(-1, 3, 32, 32).copy())
    return x, torch.from_numpy(raw[:, 0].astype(np.int64))


def normalise(x):
    return (x.float() - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def accuracy(net, x, y):
    net.eval()
    with torch.no_grad():
        hits = sum((net(x[i:i + 500].contiguous(memory_format=torch.channels_last)).argmax(1) == y[i:i + 500]).sum().item()
                   for i in range(0, len(x), 500))
    net.train()
    return 100.0 * hits / len(x)


def crops(padded, idx, flip):
    """Random 32x32 crops of 40x40 pictures, mirrored where `flip`, gathered in one indexing step."""
    n = len(idx)
    dy, dx = torch.randint(0, 9, (n, 1)), torch.randint(0, 9, (n, 1))
    cols = torch.arange(32).expand(n, 32)
    cols = torch.where(flip.view(-1, 1), 31 - cols, cols) + dx
    rows = torch.arange(32).expand(n, 32) + dy
    return padded[idx.view(-1, 1, 1), rows.view(n, 32, 1), cols.view(n, 1, 32)].permute(0, 3, 1, 2)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("cifar10")
    ap.add_argument("--epochs", type=int, default=26)
    ap.add_argument("--batch", type=int, default=128)
    ap.add_argument("--lr", type=float, default=0.25)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--seed", type=int, default=20)
    ap.add_argument("--bf16", action="store_true", help="autocast the forward and backward pass to bfloat16")
    ap.add_argument("--resume", metavar="FILE.pt", help="start from this checkpoint and anneal from --lr to 0, linearly")
    ap.add_argument("--steps", type=int, default=0, help="stop after so many steps and print their speed")
    ap.add_argument("--out", default="models/resnet20-cifar10.onnx")
    a = ap.parse_args()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)

    x, y = load(a.cifar10, [f"data_batch_{i}.bin" for i in range(1, 6)])
    xt, yt = load(a.cifar10, ["test_batch.bin"])
    xt = normalise(xt)
    padded = F.pad(normalise(x), (4, 4, 4, 4), mode="reflect").permute(0, 2, 3, 1).contiguous()
    net = ResNet20().to(memory_format=torch.channels_last)
    ema = ResNet20().to(memory_format=torch.channels_last)
    ema.load_state_dict(net.state_dict())
    decay = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    opt = torch.optim.SGD([{"params": decay, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0}],
                          lr=a.lr, momentum=0.9, nesterov=True)
    steps = len(x) // a.batch
    total = steps * a.epochs
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, a.lr, total_steps=total, pct_start=0.2, div_factor=10, final_div_factor=1000)
    if a.resume:
        saved = torch.load(a.resume)
        net.load_state_dict(saved["net"])
        ema.load_state_dict(saved["ema"])
        sched = torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.001, total_iters=total)
    start, done = time.time(), 0
    first_flip = torch.rand(len(x)) < 0.5
    for epoch in range(a.epochs):
        order, loss_sum = torch.randperm(len(x)), 0.0
        for s in range(steps):
            idx = order[s * a.batch:(s + 1) * a.batch]
            flip = first_flip[idx] ^ bool(epoch % 2)
            xb = crops(padded, idx, flip).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=a.bf16):
                out = net(xb)
            loss = F.cross_entropy(out.float(), y[idx], label_smoothing=0.1)
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            sched.step()
            loss_sum += loss.item()
            done += 1
            if done % 5 == 0:
                keep = min(0.99, done / (done + 50))
                with torch.no_grad():
                    for e, p in zip(ema.state_dict().values(), net.state_dict().values()):
                        if e.dtype.is_floating_point:
                            e.lerp_(p, 1 - keep)
                        else:
                            e.copy_(p)
            if a.steps and done == a.steps:
                print(f"{1000 * (time.time() - start) / done:.1f} ms a step")
                return
        report = f"epoch {epoch + 1:3d}  loss {loss_sum / steps:.4f}  {time.time() - start:6.0f} s"
        if epoch % 4 == 3 or epoch + 1 == a.epochs:
            report += f"  test {accuracy(net, xt, yt):.2f} %  averaged {accuracy(ema, xt, yt):.2f} %"
        print(report, flush=True)
        torch.save({"ema": ema.state_dict(), "net": net.state_dict(), "epoch": epoch}, a.out + ".pt")
    top1 = accuracy(ema, xt, yt)
    ema.eval()
    torch.onnx.export(ema.to(memory_format=torch.contiguous_format), torch.zeros(1, 3, 32, 32), a.out, opset_version=18,
                      dynamo=False, input_names=["image"], output_names=["logits"], do_constant_folding=False,
                      training=torch.onnx.TrainingMode.PRESERVE,
                      dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}})
    import onnx
    m = onnx.load(a.out)
    onnx.helper.set_model_props(m, {"planish.preprocessing": json.dumps(
        {"size": [32, 32], "resize": "bilinear", "mean": MEAN, "std": STD, "channels": "rgb"})})
    onnx.save(m, a.out)
    print(f"{a.out}: top-1 {top1:.2f} % of {len(xt)} test pictures")


if __name__ == "__main__":
    main()
