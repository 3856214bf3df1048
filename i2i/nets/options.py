"""Options that several networks share."""

from typing import Annotated, Literal

from typing_extensions import Doc

Width = Annotated[int, Doc("Channels next to the image, doubled inwards up to a limit")]
MaxChannels = Annotated[int, Doc("Maximum number of channels of a layer")]
Norm = Annotated[str, Doc("Normalization layers: batch, syncbatch, instance, virtual or none")]
Reference = Annotated[int, Doc("Images in the reference batch of norm=virtual, 2 or more")]
Up = Annotated[Literal["transposed", "resize", "bilinear"], Doc(
    "Upsampling: transposed convolution, or nearest neighbor or bilinear and a 3x3 convolution, without "
    "checkerboard")]
Down = Annotated[Literal["strided", "blurpool"], Doc(
    "Downsampling: strided convolution, or stride 1 and then every second pixel of a blur (Zhang 2019)")]
InputSkipChannels = Annotated[int, Doc(
    "Channels that a last 3x3 convolution sees beside the input image, whose details it may copy; 0: none")]
Dropout = Annotated[float, Doc("Probability of dropout, less than 1; 0: none")]

# Of generators from noise.
ZDim = Annotated[int, Doc("Length of the latent vector z")]
WDim = Annotated[int, Doc("Length of the style vector w")]
Condition = Annotated[Literal["concat", "batchnorm"], Doc(
    "How a label enters: embedded beside z (Mirza and Osindero 2014), or as gain and bias of every norm "
    "(de Vries et al. 2017)")]
MappingLayers = Annotated[int, Doc("Layers of the mapping network, 1 to 100")]
Mixing = Annotated[float, Doc("Share of the training images that have two styles, 0 to 1")]
Grown = Annotated[float, Doc("Share of the run after which the network has full size; 0: from the start")]
Fade = Annotated[float, Doc("Share of each level's time during which the next one is faded in; 0: sudden")]

# Of discriminators.
Group = Annotated[int, Doc(
    "Images per group of the minibatch standard deviation (Karras et al. 2018, section 3); 0: none")]
Kernels = Annotated[int, Doc(
    "Kernels of minibatch discrimination before the last layer (Salimans et al. 2016, section 3.2); 0: none")]
KernelDims = Annotated[int, Doc("Numbers per kernel of minibatch discrimination")]
