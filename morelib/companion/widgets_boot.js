// Runs before the static widget manager (html-manager) on pages that hold a Jupyter widget.
(function () {
  // anywidget and the manager's icon fonts lie beside this file. Without the paths they would be looked for at a CDN
  // and beside the page.
  if (window.require && window.require.config) {
    const here = document.currentScript.src.replace(/\/[^/]*$/, "");
    window.require.config({ paths: { anywidget: here + "/anywidget", "@jupyter-widgets": here + "/@jupyter-widgets" } });
  }
  // html-manager calls MathJax 2's Hub for labels; the book has MathJax 3, where that call would throw.
  const hub = {
    Queue: function (job) {
      if (window.MathJax.typesetPromise && job[2]) window.MathJax.typesetPromise([job[2]]);
    },
  };
  window.MathJax = window.MathJax || {};
  window.MathJax.Hub = hub;
  window.MathJax.startup = Object.assign({}, window.MathJax.startup, {
    ready: function () {
      window.MathJax.Hub = hub;
      window.MathJax.startup.defaultReady();
    },
  });
})();
