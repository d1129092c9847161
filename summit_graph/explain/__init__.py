"""What the eye needs beside the graphs: similarity of classes, embedding, feature visualisation."""
