// Draws every plotly figure of a book page from the JSON that lies in it. Works over http and from file://.
document.addEventListener("DOMContentLoaded", function () {
  document.querySelectorAll(".morelib-plotly").forEach(function (box) {
    const figure = JSON.parse(box.querySelector("script").textContent);
    const layout = Object.assign({}, figure.layout, { autosize: true });
    delete layout.width; // the page decides: a figure is as wide as its column
    const config = Object.assign({}, figure.config, { responsive: true, displaylogo: false });
    delete config.plotlyServerURL;
    const target = document.createElement("div");
    box.replaceChildren(target);
    Plotly.newPlot(target, figure.data, layout, config).then(function () {
      if (figure.frames) Plotly.addFrames(target, figure.frames);
    });
  });
});
