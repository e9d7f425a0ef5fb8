"use strict";
/* The last script but plotly: the colours, then the page. */
{
  /* plotly writes styles of its own; where the page's policy asks for it, they bear the page's nonce. */
  const { nonce } = document.documentElement.dataset;
  if (nonce) {
    const made = document.createElement.bind(document);
    document.createElement = (name, options) => {
      const node = made(name, options);
      if (node instanceof HTMLStyleElement) node.nonce = nonce;
      return node;
    };
  }
  const { origins, darker } = JSON.parse(document.getElementById("colours").textContent);
  Object.assign(braid, { origins, darker });
  braid.start();
}
