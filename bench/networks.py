"""Two networks that torchvision lacks: a U-Net and a one-stage detector in the YOLO manner.

They exist to put into ONNX files what classifiers never use: transposed convolution, skip connections over concat,
nearest upsampling, a distribution-focal head with softmax, reshape and transpose, and anchors made from the shape.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F


def double_conv(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class UNet(nn.Module):
    """Ronneberger et al. 2015 with padding, four levels; one transposed convolution, the other steps bilinear."""

    def __init__(self, width=32, classes=21):
        super().__init__()
        widths = [width, width * 2, width * 4, width * 8]
        self.down = nn.ModuleList(double_conv(a, b) for a, b in zip([3] + widths[:-1], widths))
        self.bottom = double_conv(widths[-1], widths[-1])
        self.transposed = nn.ConvTranspose2d(widths[-1], widths[-1], 2, stride=2)
        below = [widths[-1]] + widths[:0:-1]
        self.up = nn.ModuleList(double_conv(a + b, b) for a, b in zip(below, widths[::-1]))
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x):
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for level, block in enumerate(self.up):
            if level == 0:
                x = self.transposed(x)
            else:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([skips.pop(), x], 1))
        return self.head(x)


class ConvUnit(nn.Module):
    """Convolution, batch normalisation, SiLU."""

    def __init__(self, inputs, outputs, kernel=1, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return F.silu(self.norm(self.conv(x)))


class CrossStage(nn.Module):
    """A cross-stage partial block: split, residual bottlenecks, concat of every stage."""

    def __init__(self, inputs, outputs, repeats, residual):
        super().__init__()
        half = outputs // 2
        self.enter = ConvUnit(inputs, outputs)
        self.steps = nn.ModuleList(
            nn.Sequential(ConvUnit(half, half, 3), ConvUnit(half, half, 3)) for _ in range(repeats))
        self.leave = ConvUnit(half * (2 + repeats), outputs)
        self.residual = residual

    def forward(self, x):
        parts = list(self.enter(x).chunk(2, 1))
        for step in self.steps:
            y = step(parts[-1])
            parts.append(parts[-1] + y if self.residual else y)
        return self.leave(torch.cat(parts, 1))


class PyramidPool(nn.Module):
    """Spatial pyramid pooling by three chained 5×5 maxima."""

    def __init__(self, channels):
        super().__init__()
        self.enter = ConvUnit(channels, channels // 2)
        self.leave = ConvUnit(channels * 2, channels)

    def forward(self, x):
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.leave(torch.cat(parts, 1))


class Detector(nn.Module):
    """Boxes (x, y, width, height in pixels) and class scores for every cell of three scales: [N, 4+classes, cells]."""

    BINS = 16

    def __init__(self, width=16, classes=80):
        super().__init__()
        w = [width, width * 2, width * 4, width * 8, width * 16]
        self.classes = classes
        self.stem = nn.Sequential(ConvUnit(3, w[0], 3, 2), ConvUnit(w[0], w[1], 3, 2), CrossStage(w[1], w[1], 1, True))
        self.stage3 = nn.Sequential(ConvUnit(w[1], w[2], 3, 2), CrossStage(w[2], w[2], 2, True))
        self.stage4 = nn.Sequential(ConvUnit(w[2], w[3], 3, 2), CrossStage(w[3], w[3], 2, True))
        self.stage5 = nn.Sequential(
            ConvUnit(w[3], w[4], 3, 2), CrossStage(w[4], w[4], 1, True), PyramidPool(w[4]))
        self.up4 = CrossStage(w[4] + w[3], w[3], 1, False)
        self.up3 = CrossStage(w[3] + w[2], w[2], 1, False)
        self.reduce3 = ConvUnit(w[2], w[2], 3, 2)
        self.down4 = CrossStage(w[2] + w[3], w[3], 1, False)
        self.reduce4 = ConvUnit(w[3], w[3], 3, 2)
        self.down5 = CrossStage(w[3] + w[4], w[4], 1, False)
        self.boxes = nn.ModuleList(
            nn.Sequential(ConvUnit(c, 64, 3), ConvUnit(64, 64, 3), nn.Conv2d(64, 4 * self.BINS, 1)) for c in w[2:])
        self.scores = nn.ModuleList(
            nn.Sequential(ConvUnit(c, 80, 3), ConvUnit(80, 80, 3), nn.Conv2d(80, classes, 1)) for c in w[2:])
        self.register_buffer("bins", torch.arange(self.BINS, dtype=torch.float32).view(1, self.BINS, 1, 1))

    def forward(self, x):
        c3 = self.stage3(self.stem(x))
        c4 = self.stage4(c3)
        c5 = self.stage5(c4)
        p4 = self.up4(torch.cat([F.interpolate(c5, scale_factor=2, mode="nearest"), c4], 1))
        p3 = self.up3(torch.cat([F.interpolate(p4, scale_factor=2, mode="nearest"), c3], 1))
        p4 = self.down4(torch.cat([self.reduce3(p3), p4], 1))
        p5 = self.down5(torch.cat([self.reduce4(p4), c5], 1))
        boxes, scores, centres, strides = [], [], [], []
        for level, feature in enumerate([p3, p4, p5]):
            stride = 8.0 * 2**level
            height, width = feature.shape[2], feature.shape[3]
            rows = torch.arange(height, dtype=torch.float32) + 0.5
            columns = torch.arange(width, dtype=torch.float32) + 0.5
            grid_y, grid_x = torch.meshgrid(rows, columns, indexing="ij")
            centres.append(torch.stack([grid_x.reshape(-1), grid_y.reshape(-1)], 0))
            strides.append(torch.full_like(centres[-1][:1], stride))
            boxes.append(self.boxes[level](feature).flatten(2))
            scores.append(self.scores[level](feature).flatten(2))
        centres, strides = torch.cat(centres, 1), torch.cat(strides, 1)
        box = torch.cat(boxes, 2)
        box = box.view(box.shape[0], 4, self.BINS, -1).transpose(1, 2).softmax(1)
        near, far = (box * self.bins).sum(1).chunk(2, 1)
        low, high = centres - near, centres + far
        box = torch.cat([(low + high) / 2, high - low], 1) * strides
        return torch.cat([box, torch.cat(scores, 2).sigmoid()], 1)
