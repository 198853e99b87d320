"""Prediction on the production computer: one exported file, numpy, Pillow, simplejpeg, one engine. No torch.

::

    from supersimplenet.runtime import Inspector

    inspector = Inspector.load("parts.onnx")
    prediction = inspector.inspect("017.png")
    print(prediction.verdict, prediction.score, prediction.p_value, prediction.defects)

``python -m supersimplenet.runtime parts.onnx 017.png`` prints the same results as a line of JSON.
"""

from supersimplenet.errors import ImageError as ImageError
from supersimplenet.runtime.bundle import Bundle as Bundle
from supersimplenet.runtime.bundle import Certificate as Certificate
from supersimplenet.runtime.inspector import Inspector as Inspector
