// The report shows its end, unless it was scrolled up: gradio 4 sees to that on an open tab only, gradio 3 not at all
onUiLoaded(() => {
  const report = gradioApp().querySelector("#s4s_report textarea");
  let height = 0;                             // of its text when last looked at; 0 while its tab is closed
  if (report) setInterval(() => {
    if (report.scrollHeight === height) return;
    if (report.scrollTop + report.clientHeight > height - 100) report.scrollTop = report.scrollHeight;
    height = report.scrollHeight;
  }, 1000);
});
