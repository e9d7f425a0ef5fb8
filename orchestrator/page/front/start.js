"use strict";
/* The last script but plotly: the colours, then the page. */
{
  const { origins, darker } = JSON.parse(document.getElementById("colours").textContent);
  Object.assign(braid, { origins, darker });
  braid.start();
}
